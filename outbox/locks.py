"""Rows that somebody else has locked: passed over, or waited for a moment and then passed over."""

from collections.abc import Callable
from typing import TypeVar

from django.db import OperationalError, connection
from django.db.models import QuerySet

from outbox.database_errors import is_lock_wait, repeat_on_conflict
from outbox.models import OutboxMessage

_SHORTLY = "waits_seconds"  # set on a driver's connection
_T = TypeVar("_T")


def unlocked(rows: QuerySet[OutboxMessage]) -> QuerySet[OutboxMessage]:
    """Lock the rows and pass those that another transaction holds. On SQLite a transaction is the only writer."""
    if connection.features.has_select_for_update_skip_locked:
        return rows.select_for_update(skip_locked=True)
    return rows


def wait_shortly(step: Callable[[], _T], *, seconds: int) -> _T:
    """Run a step whose statements wait so long for a lock at most; the server's own default is 50 seconds."""
    connection.ensure_connection()
    if connection.vendor == "mysql" and getattr(connection.connection, _SHORTLY, None) != seconds:
        with connection.cursor() as cursor:
            cursor.execute("SET SESSION innodb_lock_wait_timeout = %s", [seconds])
        setattr(connection.connection, _SHORTLY, seconds)
    return step()


def update_or_pass(update: Callable[[], _T], *, without_locked: Callable[[], _T], seconds: int) -> _T:
    """
    Run an UPDATE of many rows, again after a conflict; when a row stays locked, do the same for the others alone.

    One statement as a rule: who has locked a row lets go of it in a moment.
    """
    try:
        return repeat_on_conflict(lambda: wait_shortly(update, seconds=seconds), is_wait_repeated=False)
    except OperationalError as error:
        if not is_lock_wait(error) or connection.in_atomic_block:
            raise
    return repeat_on_conflict(without_locked)
