"""Millions of finished rows, quickly: the database makes them itself, and the indexes are built afterwards.

`python -m bench.finished` does it ahead: the next measurement that needs them takes the whole table over in a moment.
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

EVENTS_PER_KEY = 10
PAYLOAD_BYTES = 1024
# Written into every row ahead, so it is no topic of one bench alone.
TOPIC = "smartflow_bench.filled"
_CHUNK = 500_000
_KEPT = "smartflow_bench_{finished}_{pending}"
# A random UUID's look from a number, so that the unique index is filled as by real events: everywhere.
UUID_OF = (
    "INSERT(INSERT(INSERT(INSERT(MD5(CONCAT(%(salt)s, {number})), 9, 0, '-'), 14, 0, '-'), 19, 0, '-'), 24, 0, '-')"
)
_EVENT_ID = UUID_OF.format(number="seq")
# Neighbours are of different conversations, each of which has ten events.
_KEY = UUID_OF.format(number="'key', seq %% %(keys)s")
# The braces are doubled because the statement goes through str.format once.
_PAYLOAD = (
    'CONCAT(RPAD(CONCAT(\'{{"event_id":"\', event_id, \'","event_type":"chat.history.persist.requested",\''
    ' \'"event_version":1,"aggregate_id":"\', message_key, \'","payload":{{"message":"\'), %(bytes)s - 3,'
    " 'lecture library exam deadline report seminar '), '\"}}}}')"
)
_INSERT = (
    f"INSERT INTO {TABLE} (event_id, biz_type, topic, message_key, payload, status, shard, ready_shard, retry_count,"
    " max_retry, request_id, traceparent, published_by, published_at, consumed_by, consumed_at, discard_reason,"
    " created_at, updated_at) SELECT event_id, 'chat.history.persist.requested', %(topic)s, message_key,"
    f" {_PAYLOAD}, {{status}}, CRC32(message_key) %% 64, {{ready}}, 0, 20, '', '', {{by}}, '', NOW(6), NOW(6)"
    f" FROM (SELECT seq, {_EVENT_ID} event_id, {_KEY} message_key FROM seq_{{first}}_to_{{last}}) fresh ORDER BY seq"
)
_FINISHED = {"status": "'consumed'", "ready": "NULL", "by": "'relay-0', NOW(6), 'consumer', NOW(6)"}
_PENDING = {"status": "'pending'", "ready": "CRC32(message_key) %% 64", "by": "'', NULL, '', NULL"}


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


def fill(cursor: Any, *, finished: int, pending: int) -> None:
    """Fill the empty table with consumed rows and, after them, rows that are ready; every index is there afterwards."""
    indexes = secondary_indexes(cursor)
    cursor.execute(f"ALTER TABLE {TABLE} {', '.join(f'DROP INDEX `{name}`' for name in indexes)}")
    _insert(cursor, "finished", finished, _FINISHED)
    _insert(cursor, "pending", pending, _PENDING)
    cursor.execute(f"ALTER TABLE {TABLE} {', '.join(f'ADD {definition}' for definition in indexes.values())}")
    cursor.execute(f"ANALYZE TABLE {TABLE}")
    cursor.fetchall()


def _insert(cursor: Any, salt: str, count: int, values: dict[str, str]) -> None:
    parameters = {"salt": salt, "keys": max(1, count // EVENTS_PER_KEY), "bytes": PAYLOAD_BYTES, "topic": TOPIC}
    for first in range(1, count + 1, _CHUNK):
        cursor.execute(_INSERT.format(first=first, last=min(count, first + _CHUNK - 1), **values), parameters)


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
