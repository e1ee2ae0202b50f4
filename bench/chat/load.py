"""The load, in a process of its own: takes one job as JSON, measures, prints the figures as JSON."""

import gc
import json
import sys
from pathlib import Path
from typing import Any

import uvloop

from bench.chat import tails, turns, visits
from bench.chat.wire import LoadFailed, Target

JOBS = {
    "gaps": turns.measure_gaps,
    "throughput": turns.measure_throughput,
    "first_tokens": turns.measure_first_tokens,
    "memory": turns.measure_memory,
    "idle": tails.measure_idle,
    "one_log": tails.measure_one_log,
    "stop": visits.measure_stops,
    "resume": visits.measure_resumes,
}


async def _run(job: dict[str, Any]) -> dict[str, Any]:
    users = job.pop("users")
    tokens = json.loads(Path(users).read_text()) if users else []
    target = Target(**job.pop("target"), tokens=tuple(tokens))
    measure: Any = JOBS[job.pop("job")]
    found: dict[str, Any] = await measure(target, **job)
    return found


def main() -> int:
    """Return 0 when the job was measured."""
    gc.disable()  # a pause of this process would be taken for one of the server
    try:
        print(json.dumps(uvloop.run(_run(json.loads(sys.argv[1])))))
    except LoadFailed as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
