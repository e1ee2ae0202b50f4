"""Counts what a process of the product asks MariaDB for; Python imports this by itself when its folder is on the path.

The numbers lie in a file for each process, mapped into memory, so that bench/statements.py can read them at any moment.
"""

import mmap
import os
import struct
import threading
from pathlib import Path

from MySQLdb.connections import Connection

KINDS = ("select", "insert", "update", "delete", "other")
_FOLDER = Path(os.environ["BENCH_COUNT_FOLDER"])
_NAME = os.environ["BENCH_COUNT_NAME"]
_LAYOUT = f"{len(KINDS)}q"
_query = Connection.query
_counts: list[int] = []
_owner = 0
_file: mmap.mmap
_lock = threading.Lock()


def _count(sql: bytes | bytearray | str) -> None:
    global _counts, _owner, _file
    if _owner != os.getpid():  # a fork counts on its own
        _owner, _counts = os.getpid(), [0] * len(KINDS)
        path = _FOLDER / f"{_NAME}.{_owner}"
        path.write_bytes(struct.pack(_LAYOUT, *_counts))
        with path.open("r+b") as file:
            _file = mmap.mmap(file.fileno(), 0)
    with _lock:
        _add(sql)


def _add(sql: bytes | bytearray | str) -> None:
    start = sql[:16] if isinstance(sql, str) else bytes(sql[:16]).decode(errors="replace")
    word = start.lstrip(" (\n")[:6].lower()
    _counts[KINDS.index(word) if word in KINDS else -1] += 1
    _file[:] = struct.pack(_LAYOUT, *_counts)


def query(connection: Connection, sql: bytes | bytearray | str) -> None:
    _count(sql)
    _query(connection, sql)


Connection.query = query


def _controlled(verb: str) -> None:
    call = getattr(Connection, verb)

    def control(connection: Connection) -> None:
        _count(verb)
        call(connection)

    setattr(Connection, verb, control)


_controlled("commit")
_controlled("rollback")
