"""Tells a database that is away or busy from one that refuses a statement.

Called by relay, dispatch and consumer. The first is nobody's fault and passes; the second would fail again and is the
event's own failure, which must not hold up the rest.
"""

from collections.abc import Callable
from typing import TypeVar

from django.db import InterfaceError, OperationalError, connection

from outbox.tally import TALLY

# Deadlock, lock wait timeout, record changed (MariaDB 11.6.2 and later): the same transaction succeeds if run again.
_CONFLICTS = frozenset({1213, 1205, 1020})
# Of the server: too many connections, shutdown, network errors, read-only, disk or table full, killed, no access.
_SERVER_AWAY = frozenset(
    {1021, 1040, 1042, 1043, 1044, 1045, 1049, 1053, 1077, 1079, 1114, 1129, 1130, 1152, 1158, 1159, 1160, 1161}
) | frozenset({1180, 1184, 1203, 1226, 1290, 1317, 1637, 1792, 1836, 1927, 1969, 3024})
# Of the client library: cannot connect, gone away, lost.
_CLIENT_AWAY = range(2000, 3000)
_SQLITE_REFUSES = 1  # SQLITE_ERROR: no such table, no such column; every other code is the file's or the lock's
_TRIES = 5

_T = TypeVar("_T")


def is_away(error: BaseException) -> bool:
    """Tell whether the error says that the database cannot be used now, whatever the statement was."""
    if isinstance(error, InterfaceError):
        return True
    if not isinstance(error, OperationalError):
        return False
    if connection.vendor == "sqlite":
        code = getattr(error.__cause__, "sqlite_errorcode", None)
        return code is not None and code & 0xFF != _SQLITE_REFUSES
    code = error.args[0] if error.args else None
    return code in _CONFLICTS or code in _SERVER_AWAY or code in _CLIENT_AWAY


def repeat_on_conflict(step: Callable[[], _T]) -> _T:
    """
    Run a step that is one transaction, again when the database chose it as the loser of a conflict.

    Twice:  the step must tolerate it: the database rolled back what it did.
    Raises: what the step raises; a conflict too after the last try, or inside a caller's transaction, which is lost.
    """
    for _ in range(_TRIES - 1):
        try:
            return step()
        except OperationalError as error:
            if connection.in_atomic_block or not error.args or error.args[0] not in _CONFLICTS:
                raise
            TALLY.add("conflicts")
    return step()
