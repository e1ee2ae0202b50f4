"""The clock that leases and retries are compared by: the database's, because every relay shares it."""

import threading
import time
from datetime import UTC, datetime, timedelta

from django.db import connection

from smartflow.kernel.clock import utc_now

# Asked again after this; in between this process's monotonic clock counts on, which no clock step can move.
_REFRESH_SECONDS = 10.0


class _Reading(threading.local):
    moment: datetime | None = None
    taken_at: float = 0.0


_reading = _Reading()


def database_now() -> datetime:
    """Return the database's time in UTC, in microseconds; on SQLite every process shares this machine's clock."""
    if connection.vendor != "mysql":
        return utc_now()
    age = time.monotonic() - _reading.taken_at
    if _reading.moment is None or age > _REFRESH_SECONDS:
        with connection.cursor() as cursor:
            cursor.execute("SELECT UTC_TIMESTAMP(6)")
            _reading.moment = cursor.fetchone()[0].replace(tzinfo=UTC)
        _reading.taken_at, age = time.monotonic(), 0.0
    return _reading.moment + timedelta(seconds=age)
