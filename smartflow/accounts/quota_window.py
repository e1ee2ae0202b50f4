"""The weeks of a user's token quota: where one begins and ends. Pure; quota opens them, queries shows them.

A window ends at a midnight of the user's zone, 7 local days after it began, so it has 167 or 169 hours when the clock
changes meanwhile. Each one begins where the last ended. After a change of zone the running window keeps its end, and
the next one runs on to the first midnight of the new zone that is at least 7 local days away: moving about in the
world makes a window longer and never opens one early.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

DAYS = 7


@dataclass(frozen=True)
class Week:
    """The instants, in UTC, at which a window begins and the next one may."""

    starts_at: datetime
    ends_at: datetime


def find_week(*, last: Week | None, zone: ZoneInfo, now: datetime) -> Week:
    """
    Return the week that counts now: `last` while it runs, otherwise the one to open.

    Units: `last` is the newest week the user ever had, None before the first use. Whole weeks without use are skipped.
           A clock that was put back gets `last` again, never an earlier one.
    """
    week = last or _week_from(_midnight(now.astimezone(zone).date(), zone), zone)
    while week.ends_at <= now:
        week = _week_from(week.ends_at, zone)
    return week


def find_zone(name: str, *, default: str) -> ZoneInfo:
    """Return the zone of that name, the default for "" and for a name that this machine's zone data does not know."""
    try:
        return ZoneInfo(name or default)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return ZoneInfo(default)


def is_zone(name: str) -> bool:
    """Tell whether name is an IANA zone that this machine knows."""
    return name in _names()


@cache
def _names() -> frozenset[str]:
    return frozenset(available_timezones())


def _week_from(starts_at: datetime, zone: ZoneInfo) -> Week:
    day = starts_at.astimezone(zone).date()
    is_midnight = _midnight(day, zone) == starts_at
    return Week(starts_at, _midnight(day + timedelta(days=DAYS if is_midnight else DAYS + 1), zone))


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    """Return the instant at which a local day begins; where the clock jumps over 00:00, the instant of the jump."""
    return datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)
