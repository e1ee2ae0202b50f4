"""Tells a database that is away or busy from one that refuses a statement.

Called by relay, dispatch and consumer. The first is nobody's fault and passes; the second would fail again and is the
event's own failure, which must not hold up the rest. Some errors look like the first and are the second: a statement
too large for the server costs the connection. Then the server is asked.
"""

import random
import time
from collections.abc import Callable
from typing import TypeVar

from django.db import InterfaceError, OperationalError, connection

from outbox.tally import TALLY

_LOCK_WAIT = 1205
# Deadlock, lock wait timeout, record changed (MariaDB 11.6.2 and later): the same transaction succeeds if run again.
_CONFLICTS = frozenset({1213, _LOCK_WAIT, 1020})
# The connection is gone: killed, idle for too long, or the server's answer to a statement larger than it takes.
_LOST = frozenset({1927, 2006, 2013, 2055, 4031})
# Of the server: too many connections, shutdown, network errors, read-only, disk or table full, no access.
_SERVER_AWAY = frozenset(
    {1021, 1040, 1042, 1043, 1044, 1045, 1049, 1053, 1077, 1079, 1114, 1129, 1130, 1152, 1158, 1159, 1160, 1161}
) | frozenset({1180, 1184, 1203, 1226, 1290, 1637, 1792, 1836})
# Of the client library: cannot connect, gone away, lost.
_CLIENT_AWAY = range(2000, 3000)
_SQLITE_REFUSES = 1  # SQLITE_ERROR: no such table, no such column; every other code is the file's or the lock's
_TRIES = 5
# At most this before the second try, twice as much before the third, and so on: 0.3 s in all. Larger: fewer tries where
# many want the same row, and a longer wait where two do.
_FIRST_PAUSE_SECONDS = 0.02

_T = TypeVar("_T")


def is_away(error: BaseException) -> bool:
    """Tell whether the error says that the database is away or busy, which passes by itself."""
    if isinstance(error, InterfaceError):
        return True
    if not isinstance(error, OperationalError):
        return False
    if connection.vendor == "sqlite":
        code = getattr(error.__cause__, "sqlite_errorcode", None)
        return code is not None and code & 0xFF != _SQLITE_REFUSES
    code = _code(error)
    return code in _CONFLICTS | _LOST | _SERVER_AWAY or code in _CLIENT_AWAY


def is_lock_wait(error: BaseException) -> bool:
    """Tell whether the error says that a row was locked by somebody else for too long."""
    return _code(error) == _LOCK_WAIT


def is_lost(error: BaseException) -> bool:
    """Tell whether the error says that the connection is gone."""
    return isinstance(error, InterfaceError) or _code(error) in _LOST


def answers_after(error: BaseException) -> bool:
    """
    Tell whether the server answers right after a conflict or a lost connection: then only what was asked is to blame.

    A lost connection is replaced. Nothing is asked inside a caller's transaction, which is lost, nor of SQLite, which
    locks as a whole.
    """
    is_telling = is_lost(error) or _code(error) in _CONFLICTS
    if not is_telling or connection.vendor == "sqlite" or connection.in_atomic_block:
        return False
    if is_lost(error):
        connection.close()
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except (OperationalError, InterfaceError):
        return False
    return True


def _code(error: BaseException) -> object:
    return error.args[0] if isinstance(error, OperationalError) and error.args else None


def repeat_on_conflict(step: Callable[[], _T], *, is_wait_repeated: bool = True) -> _T:
    """
    Run a step that is one transaction, again when the database chose it as the loser of a conflict.

    A wait for a lock that took too long is a conflict too, unless the caller has something better to do than to wait.
    Twice:  the step must tolerate it: the database rolled back what it did.
    Raises: what the step raises; a conflict too after the last try, or inside a caller's transaction, which is lost.
    """
    repeated = _CONFLICTS if is_wait_repeated else _CONFLICTS - {_LOCK_WAIT}
    for number in range(_TRIES - 1):
        try:
            return step()
        except OperationalError as error:
            if connection.in_atomic_block or _code(error) not in repeated:
                raise
            TALLY.add("conflicts")
        # Those that met once would meet again: each waits for another while.
        time.sleep(random.random() * _FIRST_PAUSE_SECONDS * 2**number)  # noqa: S311 - spreads, guards nothing
    return step()
