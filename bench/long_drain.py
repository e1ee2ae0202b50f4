"""A million pending rows with five million finished ones beside them: how fast they get to Kafka, first to last.

On a MariaDB of its own, because the small pool of the others would make it a figure of the disk. The rate is read from
the broker's own ends of the partitions, so that watching costs the database nothing.
"""

import sys
import time
from collections.abc import Callable
from contextlib import closing
from itertools import pairwise
from pathlib import Path

from bench.figures import Load, ratio
from bench.finished import fill
from bench.installation import Installation
from bench.processes import wait_until
from bench.servers import Corner, own_database
from bench.table import OutboxTable

FINISHED, PENDING = 5_000_000, 1_000_000
QUICK_FINISHED, QUICK_PENDING = 50_000, 20_000
# The pending rows are 1.3 GB and the indexes as much: a server in service has more, the other figures' has 256 MB.
POOL_MB = 1024
# The filling included; then it stops with the tenths that are whole, but not before the first is.
SECONDS = 340
LONGEST_SECONDS = 600
_TENTHS = 10
_WATCH_SECONDS = 0.1


def measure(folder: Path, variables: dict[str, str], *, is_quick: bool, load: Load) -> dict[str, object]:
    """Return the rates of one drain by the worker alone; `variables` lead to the servers, of which Kafka is used."""
    folder.mkdir()
    with (
        own_database(variables, pool_mb=POOL_MB) as own,
        closing(Corner(own)) as corner,
        closing(Installation(folder, corner.environment())) as installation,
    ):
        return _drain(installation, corner, is_quick=is_quick, load=load)


def _drain(installation: Installation, corner: Corner, *, is_quick: bool, load: Load) -> dict[str, object]:
    finished, pending = (QUICK_FINISHED, QUICK_PENDING) if is_quick else (FINISHED, PENDING)
    started = time.monotonic()
    with closing(corner.connect()) as connection:
        fill(connection.cursor(), finished=finished, pending=pending, topic=corner.topic)
        server = OutboxTable(connection, check_alive=installation.check_alive).server()
    filled = round(time.monotonic() - started)
    _say(f"{finished} finished and {pending} pending rows after {filled} s")
    corner.create_topic(corner.topic)
    moments = _watch(lambda: corner.count_messages(corner.topic), pending, installation, until=started + SECONDS)
    load.look()
    sent = pending * (len(moments) - 1) // _TENTHS
    tenths = [round(pending / _TENTHS / max(end - begin, _WATCH_SECONDS)) for begin, end in pairwise(moments)]
    return {
        "rows": {"finished": finished, "pending": pending, "sent": sent},
        "fill_seconds": filled,
        "rows_per_second": round(sent / (moments[-1] - moments[0])),
        "by_tenth": tenths,
        "last_of_first_tenth": ratio(tenths[-1], tenths[0]),
        "server": server,
        "load": load.report(),
    }


def _watch(count: Callable[[], int], pending: int, installation: Installation, *, until: float) -> list[float]:
    """Return the moments at which each tenth was in the topic, the start first; those of at least one tenth."""
    moments: list[float] = []
    installation.start("worker")

    def is_over() -> bool:
        installation.check_alive()
        sent = count()
        now = time.monotonic()
        while len(moments) <= _TENTHS and sent >= max(1, pending * len(moments) // _TENTHS):
            moments.append(now)
            _say(f"{sent} messages {now - moments[0]:.1f} s after the first")
        return sent >= pending or (now > until and len(moments) > 1)

    wait_until(is_over, seconds=LONGEST_SECONDS, what=f"a tenth of {pending} messages", every=_WATCH_SECONDS)
    installation.stop("worker")
    return moments


def _say(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)
