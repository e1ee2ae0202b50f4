"""What a task gets where nobody said: priority, threshold, sections. Pure; the routes and the assistant use it."""

from datetime import datetime, timedelta

from tasks.contracts import Quadrant

FEWEST_SECTIONS, MOST_SECTIONS = 1, 4
# A deadline nearer than this makes a task urgent from the start.
URGENT_WITHIN = timedelta(hours=48)
# How long before its deadline an important task becomes urgent.
THRESHOLD_BEFORE_DEADLINE = timedelta(hours=24)


def default_priority(*, deadline_at: datetime | None, now: datetime) -> int:
    """Return the priority by the deadline: near or past 1, later 2, none 3."""
    if deadline_at is None:
        return Quadrant.SIMPLE
    return Quadrant.URGENT if deadline_at - now <= URGENT_WITHIN else Quadrant.IMPORTANT


def default_threshold(*, priority: int, deadline_at: datetime | None) -> datetime | None:
    """Return when a task of priority 2 becomes urgent; None without a deadline and for every other priority."""
    if priority != Quadrant.IMPORTANT or deadline_at is None:
        return None
    return deadline_at - THRESHOLD_BEFORE_DEADLINE


def normal_sections(*, wanted: int | None) -> int:
    """Return how many sections a task takes, from 1 to 4; nothing, 0 and less count as 1."""
    return min(max(wanted or FEWEST_SECTIONS, FEWEST_SECTIONS), MOST_SECTIONS)
