"""`python -m tests.faults --runs 20 --seed 1`: see `make faults`. Exit code 1 when a promise was broken.

With --mutants the product is broken on purpose, one place after the other, and the exit code is 1 when one of the
breaks goes unnoticed.
"""

import sys

from tests.faults.campaign import Campaign, as_json
from tests.faults.commandline import Suite, main
from tests.faults.hooks.faults_mutants import MUTANTS
from tests.faults.plan import LONG, SHORT, draw_plan
from tests.faults.servers import FOLDER

SUITE = Suite(
    module="tests.faults",
    folder=FOLDER,
    campaign=Campaign,
    draw_plan=draw_plan,
    short=SHORT,
    long=LONG,
    mutants=MUTANTS,
    as_json=as_json,
    describe=lambda outcome: f"{outcome.events} events",
)

if __name__ == "__main__":
    sys.exit(main(SUITE))
