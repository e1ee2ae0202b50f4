"""Millions of finished rows, quickly: the database makes them itself, in bulk.

`python -m bench.finished` does it ahead: the next bench.one_or_two_tables takes the whole table over in a moment.
"""

import argparse
import re
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

from bench.designs import TABLE
from bench.installation import Installation
from bench.servers import Corner, running_servers
from outbox.shards import SHARDS

# As conversations that go on at the same time: each has ten events, all within 200 rows.
EVENTS_PER_KEY, KEYS_AT_ONCE = 10, 20
PAYLOAD_BYTES = 1024
# Nobody reads them again: their entries in the indexes count, and short rows are filled in sooner.
FINISHED_PAYLOAD_BYTES = 256
# Of rows that nobody publishes: a table that is filled ahead is no bench's alone.
TOPIC = "smartflow_bench.filled"
_KEPT = "smartflow_bench_{finished}_{pending}"
# A random UUID's look from a number, so that the unique index is filled as by real events: everywhere.
UUID_OF = "INSERT(INSERT(INSERT(INSERT(MD5({number}), 9, 0, '-'), 14, 0, '-'), 19, 0, '-'), 24, 0, '-')"
_EVENT_ID = UUID_OF.format(number="seq")
_KEY = UUID_OF.format(number="CONCAT('key', seq DIV %(span)s * %(at_once)s + seq %% %(at_once)s)")
# The braces are doubled because the statement goes through str.format once.
_PAYLOAD = (
    'CONCAT(RPAD(CONCAT(\'{{"event_id":"\', event_id, \'","event_type":"chat.history.persist.requested",\''
    ' \'"event_version":1,"aggregate_id":"\', message_key, \'","payload":{{"message":"\'),'
    " IF(is_ready, %(bytes)s, %(finished_bytes)s) - 3, 'lecture library exam deadline report seminar '), '\"}}}}')"
)
# Finished rows first, then those that are ready. One statement, because only the first into an empty table is bulk.
_INSERT = (
    f"INSERT INTO {TABLE} (event_id, biz_type, topic, message_key, payload, status, shard, ready_shard, retry_count,"
    " max_retry, request_id, traceparent, published_by, published_at, consumed_by, consumed_at, discard_reason,"
    " created_at, updated_at) SELECT event_id, 'chat.history.persist.requested', %(topic)s, message_key,"
    f" {_PAYLOAD}, IF(is_ready, 'pending', 'consumed'), shard, IF(is_ready, shard, NULL), 0, 20, '', '',"
    " IF(is_ready, '', 'relay-0'), IF(is_ready, NULL, NOW(6)), IF(is_ready, '', 'consumer'),"
    " IF(is_ready, NULL, NOW(6)), '', NOW(6), NOW(6) FROM (SELECT seq, event_id, message_key,"
    f" CRC32(message_key) %% {SHARDS} shard, seq > %(finished)s is_ready FROM (SELECT seq, {_EVENT_ID} event_id,"
    f" {_KEY} message_key FROM seq_1_to_{{last}}) named) fresh ORDER BY seq"
)
# Then the server writes pages instead of rows, and builds each index from sorted entries.
_BULK = "SET SESSION unique_checks = {on}, foreign_key_checks = {on}, check_constraint_checks = {on}"


def secondary_indexes(cursor: Any) -> dict[str, str]:
    """Return the definition of each index but the primary key's, by name."""
    cursor.execute(f"SHOW INDEX FROM {TABLE}")
    columns: dict[str, list[str]] = {}
    unique: dict[str, bool] = {}
    for row in cursor.fetchall():
        columns.setdefault(row[2], []).append(f"`{row[4]}`")
        unique[row[2]] = not row[1]
    return {
        name: f"{'UNIQUE ' if unique[name] else ''}INDEX `{name}` ({', '.join(parts)})"
        for name, parts in columns.items()
        if name != "PRIMARY"
    }


def fill_or_take(corner: Corner, *, finished: int, pending: int) -> None:
    """Fill the corner's empty table, or put a table in its place that was filled ahead with as many rows."""
    with closing(corner.connect()) as connection:
        cursor = connection.cursor()
        kept = _KEPT.format(finished=finished, pending=pending)
        cursor.execute("SHOW DATABASES LIKE %s", (kept,))
        if cursor.fetchone() and _definition(cursor, kept) == _definition(cursor, corner.name):
            cursor.execute(f"DROP TABLE {TABLE}")
            cursor.execute(f"RENAME TABLE {kept}.{TABLE} TO {corner.name}.{TABLE}")
            cursor.execute(f"DROP DATABASE {kept}")
        else:
            fill(cursor, finished=finished, pending=pending)


def _definition(cursor: Any, database: str) -> str:
    cursor.execute(f"SHOW CREATE TABLE {database}.{TABLE}")
    return re.sub(r" AUTO_INCREMENT=\d+", "", cursor.fetchone()[1])


def fill(cursor: Any, *, finished: int, pending: int, topic: str = TOPIC) -> None:
    """Fill the empty table with consumed rows and, after them, rows that are ready."""
    parameters = {
        "finished": finished,
        "span": EVENTS_PER_KEY * KEYS_AT_ONCE,
        "at_once": KEYS_AT_ONCE,
        "bytes": PAYLOAD_BYTES,
        "finished_bytes": FINISHED_PAYLOAD_BYTES,
        "topic": topic,
    }
    cursor.execute(_BULK.format(on=0))
    cursor.execute(_INSERT.format(last=finished + pending), parameters)
    cursor.execute(_BULK.format(on=1))
    cursor.execute(f"ANALYZE TABLE {TABLE}")
    cursor.fetchall()


def main() -> int:
    """Fill a table and keep it."""
    parser = argparse.ArgumentParser(prog="python -m bench.finished", description=__doc__)
    parser.add_argument("--finished", type=int, default=5_000_000)
    parser.add_argument("--pending", type=int, default=1_000_000)
    options = parser.parse_args()
    with running_servers() as variables, closing(Corner(variables)) as corner, tempfile.TemporaryDirectory() as folder:
        Installation(Path(folder), corner.environment()).close()
        kept = _KEPT.format(finished=options.finished, pending=options.pending)
        with closing(corner.connect()) as connection:
            cursor = connection.cursor()
            fill(cursor, finished=options.finished, pending=options.pending)
            cursor.execute(f"DROP DATABASE IF EXISTS {kept}")
            cursor.execute(f"CREATE DATABASE {kept} CHARACTER SET utf8mb4 COLLATE utf8mb4_bin")
            cursor.execute(f"RENAME TABLE {TABLE} TO {kept}.{TABLE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
