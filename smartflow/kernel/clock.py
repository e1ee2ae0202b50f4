"""The one place that reads the wall clock; called at the edges, which pass `now` down as a parameter."""

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """Return this process's time as an aware datetime in UTC."""
    return datetime.now(UTC)
