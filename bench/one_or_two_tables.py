"""One table or a small hot one beside it? `python -m bench.one_or_two_tables`: what ADR 0007 rests on.

Raw SQL on MariaDB, one connection, no broker: the same steps for each design with millions of finished rows present.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zlib import crc32

from bench.designs import CONSUMED, DESIGNS, HOT_TABLE, READY_TRIGGER, TABLE, Design
from bench.figures import spread
from bench.finished import PAYLOAD_BYTES, fill_or_take
from bench.installation import Installation
from bench.processes import ROOT, wait_until
from bench.servers import Corner, running_servers

RESULTS = ROOT / "bench" / "one_or_two_tables.json"
BATCH = 500
CONSUMED_AT_ONCE = 200
LEASE = timedelta(seconds=10)
# The history is as short again as before, but for what others on the server add meanwhile.
OTHERS = 30
UNPURGED_BATCHES = 40
WINDOW = 10
Figures = dict[str, object]


class Session:
    """One relay's, writer's or consumer's connection, as the product's settings make it, without autocommit."""

    def __init__(self, corner: Corner, design: Design) -> None:
        self.design = design
        self.connection = corner.connect()
        self.cursor = self.connection.cursor()
        self.cursor.execute("SET SESSION tx_isolation = 'READ-COMMITTED', time_zone = '+00:00'")
        self.connection.autocommit(False)

    def claim(self) -> tuple[list[int], str]:
        """Lock, read and mark up to BATCH rows; commit."""
        token, now = str(uuid.uuid4()), _now()
        self.cursor.execute(self.design.candidates, {"now": now, "limit": BATCH})
        ids = [row[0] for row in self.cursor.fetchall()]
        if self.design.read:
            self.cursor.execute(self.design.read, {"ids": ids})
            self.cursor.fetchall()
        self.cursor.execute(self.design.take, {"token": token, "until": now + LEASE, "now": now, "ids": ids})
        self.connection.commit()
        return ids, token

    def settle(self, ids: list[int], token: str) -> None:
        """Say that they were published; commit."""
        for sql in self.design.settle:
            self.cursor.execute(sql, {"now": _now(), "ids": ids, "token": token})
        self.connection.commit()

    def consume(self, ids: list[int]) -> None:
        """Say that they were handled; commit."""
        self.cursor.execute(CONSUMED, {"now": _now(), "ids": ids})
        self.connection.commit()

    def append(self, statements: tuple[str, ...]) -> None:
        """Write one event in a transaction of its own."""
        key, event_id = str(uuid.uuid4()), str(uuid.uuid4())
        values = {"event_id": event_id, "key": key, "shard": crc32(key.encode()) % 64, "request_id": "", "now": _now()}
        payload = json.dumps({"event_id": event_id, "message": ""})
        values["payload"] = payload + "x" * (PAYLOAD_BYTES - len(payload))
        for sql in statements:
            self.cursor.execute(sql, values)
        self.connection.commit()

    def rows_read(self) -> int:
        """Return how many index entries and rows this session has asked the storage for."""
        self.cursor.execute("SHOW SESSION STATUS LIKE 'Handler_read%'")
        return sum(int(value) for _, value in self.cursor.fetchall())


def measure(corner: Corner, design: Design, *, batches: int, appends: int) -> Figures:
    """Return what one design costs; its statements in `prepare` were run."""
    session = Session(corner, design)
    with closing(session.connection), closing(corner.connect()) as admin:
        figures: Figures = {"bytes": _sizes(admin.cursor())}
        figures |= _at_depth(session, batches)
        if design.unforced:
            seconds = _timed(session.cursor.execute, design.unforced, {"now": _now(), "limit": BATCH})[0]
            figures["unforced_claim_ms"] = round(seconds * 1000)
            session.connection.rollback()
        figures["append_ms"] = _spread([_timed(session.append, design.append)[0] for _ in range(appends)])
        if design is HOT_TABLE:
            admin.cursor().execute(READY_TRIGGER)
            seconds = [_timed(session.append, design.append[:1])[0] for _ in range(appends)]
            figures["append_by_trigger_ms"] = _spread(seconds)
        figures |= _with_old_snapshot(corner, session, admin.cursor())
    return figures


def _at_depth(session: Session, batches: int) -> Figures:
    claims, settles, consumes, reads = [], [], [], []
    for _ in range(batches):
        before = session.rows_read()
        seconds, (ids, token) = _timed(session.claim)
        claims.append(seconds)
        reads.append(session.rows_read() - before)
        settles.append(_timed(session.settle, ids, token)[0])
        for first in range(0, BATCH, CONSUMED_AT_ONCE):
            consumes.append(_timed(session.consume, ids[first : first + CONSUMED_AT_ONCE])[0])
    return {
        "claim_ms": _spread(claims),
        "settle_ms": _spread(settles),
        "claim_and_settle_rows_per_second": round(BATCH * batches / (sum(claims) + sum(settles))),
        "consume_rows_per_second": round(BATCH * batches / sum(consumes)),
        "rows_read_per_claim": round(statistics.median(reads)),
    }


def _with_old_snapshot(corner: Corner, session: Session, admin: Any) -> Figures:
    """A transaction that reads for long keeps the entries of settled rows from being purged; the claim walks them."""
    figures: Figures = {}
    before = _history(admin)
    with closing(corner.connect()) as reader:
        reader.cursor().execute("START TRANSACTION WITH CONSISTENT SNAPSHOT")
        times = _drain(session, UNPURGED_BATCHES)
    for name, part in (("first", times[:WINDOW]), ("last", times[-WINDOW:])):
        figures[f"unpurged_{name}_claim_ms"] = _spread(part)
    started = time.monotonic()
    wait_until(lambda: _history(admin) < before + OTHERS, seconds=120, what="a purged history", every=0.1)
    figures["purge_seconds"] = round(time.monotonic() - started, 1)
    figures["purged_claim_ms"] = _spread(_drain(session, WINDOW))
    return figures


def _drain(session: Session, batches: int) -> list[float]:
    """Claim and settle; return the times of the claims."""
    times = []
    for _ in range(batches):
        seconds, (ids, token) = _timed(session.claim)
        times.append(seconds)
        session.settle(ids, token)
    return times


def _history(admin: Any) -> int:
    admin.execute("SHOW GLOBAL STATUS LIKE 'Innodb_history_list_length'")
    return int(admin.fetchone()[1])


def _sizes(admin: Any) -> dict[str, list[int]]:
    admin.execute(
        "SELECT table_name, table_rows, data_length, index_length FROM information_schema.tables"
        " WHERE table_schema = DATABASE() AND table_name IN (%s, 'ready')",
        (TABLE,),
    )
    return {name: [int(number) for number in numbers] for name, *numbers in admin.fetchall()}


def _timed(action: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    started = time.perf_counter()
    answer = action(*arguments)
    return time.perf_counter() - started, answer


def _spread(seconds: list[float]) -> dict[str, float]:
    return spread(seconds, 0.5, 0.99)


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


def prepare(corner: Corner, design: Design) -> None:
    """Turn the table into this design's; the rows that are pending stay so."""
    with closing(corner.connect()) as admin:
        cursor = admin.cursor()
        cursor.execute(f"SELECT MIN(id) - 1 FROM {TABLE} WHERE status = 'pending'")
        after = cursor.fetchone()[0]
        for sql in design.prepare:
            cursor.execute(sql)
        for sql in design.load:
            cursor.execute(sql, {"after": after})
        cursor.execute(f"ANALYZE TABLE {TABLE}")
        cursor.fetchall()


def main() -> int:
    """Measure every design on one filling, the built one first: each next one has a little fewer pending rows."""
    parser = argparse.ArgumentParser(prog="python -m bench.one_or_two_tables", description=__doc__)
    parser.add_argument("--finished", type=int, default=5_000_000)
    parser.add_argument("--pending", type=int, default=1_000_000)
    parser.add_argument("--batches", type=int, default=60)
    parser.add_argument("--appends", type=int, default=2000)
    options = parser.parse_args()
    found: dict[str, Any] = {"load_before": os.getloadavg()[0], "rows": vars(options)}
    with running_servers() as variables, closing(Corner(variables)) as corner, tempfile.TemporaryDirectory() as folder:
        with closing(Installation(Path(folder), corner.environment())):
            started = time.monotonic()
            fill_or_take(corner, finished=options.finished, pending=options.pending)
            found["fill_seconds"] = round(time.monotonic() - started)
        for design in DESIGNS:
            prepare(corner, design)
            found[design.name] = measure(corner, design, batches=options.batches, appends=options.appends)
            print(json.dumps({design.name: found[design.name]}, indent=1), file=sys.stderr, flush=True)
    found["load_after"] = os.getloadavg()[0]
    RESULTS.write_text(json.dumps(found, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
