"""The one place that reads the wall clock; called at the edges, which pass `now` down as a parameter."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """Return this process's time as an aware datetime in UTC."""
    return datetime.now(UTC)


_read_at = time.monotonic()
_reading = utc_now()


def steady_now() -> datetime:
    """Return the wall clock's time as it was read first, plus what has gone by since: no step of the clock shows."""
    return _reading + timedelta(seconds=time.monotonic() - _read_at)
