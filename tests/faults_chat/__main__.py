"""`python -m tests.faults_chat --runs 20 --seed 1`: see `make faults-chat` and tests/faults/commandline.py."""

import sys

from tests.faults.commandline import Suite, main
from tests.faults_chat.campaign import Campaign, as_json
from tests.faults_chat.hooks.chat_mutants import MUTANTS
from tests.faults_chat.plan import LONG, SHORT, draw_plan
from tests.stack.processes import ROOT

SUITE = Suite(
    module="tests.faults_chat",
    folder=ROOT / "var" / "faults-chat",
    campaign=Campaign,
    draw_plan=draw_plan,
    short=SHORT,
    long=LONG,
    mutants=MUTANTS,
    as_json=as_json,
    describe=lambda outcome: f"told {outcome.told_seconds} s, {outcome.runs} chat runs {outcome.states}",
)

if __name__ == "__main__":
    sys.exit(main(SUITE))
