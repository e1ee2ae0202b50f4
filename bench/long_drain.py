"""A million pending rows with five million finished ones beside them: how fast they get to Kafka, first to last.

The rate is read from the broker's own ends of the partitions, so that watching costs the database nothing.
"""

import sys
import time
from collections.abc import Callable
from itertools import pairwise

from bench.figures import Load, ratio
from bench.finished import TOPIC, fill_or_take
from bench.installation import Installation
from bench.processes import wait_until
from bench.servers import Corner

FINISHED, PENDING = 5_000_000, 1_000_000
QUICK_FINISHED, QUICK_PENDING = 50_000, 20_000
DRAIN_SECONDS = 900
_TENTHS = 10
_WATCH_SECONDS = 0.1


def measure(installation: Installation, corner: Corner, *, is_quick: bool, load: Load) -> dict[str, object]:
    """Return the rates of one drain by the worker alone. The outbox's table is another one afterwards."""
    finished, pending = (QUICK_FINISHED, QUICK_PENDING) if is_quick else (FINISHED, PENDING)
    started = time.monotonic()
    fill_or_take(corner, finished=finished, pending=pending)
    filled = round(time.monotonic() - started)
    _say(f"{finished} finished and {pending} pending rows after {filled} s")
    corner.create_topic(TOPIC)
    before = corner.count_messages(TOPIC)
    installation.start("worker")
    moments = _watch(lambda: corner.count_messages(TOPIC) - before, pending, installation.check_alive)
    installation.stop("worker")
    corner.admin.delete_topics([TOPIC])[TOPIC].exception(10)
    load.look()
    tenths = [round(pending / _TENTHS / (end - begin)) for begin, end in pairwise(moments)]
    return {
        "rows": {"finished": finished, "pending": pending},
        "rows_per_second": round(pending / (moments[-1] - moments[0])),
        "by_tenth": tenths,
        "last_of_first_tenth": ratio(tenths[-1], tenths[0]),
        "load": load.report(),
    }


def _watch(count: Callable[[], int], pending: int, check_alive: Callable[[], None]) -> list[float]:
    """Return the moments at which each tenth was in the topic, the start first."""
    moments: list[float] = []

    def is_there() -> bool:
        check_alive()
        sent = count()
        now = time.monotonic()
        while len(moments) <= _TENTHS and sent >= max(1, pending * len(moments) // _TENTHS):
            moments.append(now)
            _say(f"{sent} messages {now - moments[0]:.1f} s after the first")
        return sent >= pending

    wait_until(is_there, seconds=DRAIN_SECONDS, what=f"{pending} messages", every=_WATCH_SECONDS)
    return moments


def _say(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)
