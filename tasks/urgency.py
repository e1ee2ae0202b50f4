"""How a task becomes urgent by itself: the one rule behind every list, count and stored priority. Pure.

Readers derive, the database follows: operations.promote_urgent_tasks stores what `effective_priority` says here.
"""

from datetime import datetime

# Important, and hard: past the threshold 2 becomes 1 and 4 becomes 3. 1 and 3 stay as they are.
PROMOTIONS: dict[int, int] = {2: 1, 4: 3}


def is_due(*, priority: int, is_completed: bool, urgency_threshold_at: datetime | None, now: datetime) -> bool:
    """Tell whether the task is shown with another priority than the one that is stored."""
    return (
        priority in PROMOTIONS and not is_completed and urgency_threshold_at is not None and urgency_threshold_at <= now
    )


def effective_priority(
    *, priority: int, is_completed: bool, urgency_threshold_at: datetime | None, now: datetime
) -> int:
    """Return the quadrant in which the task stands now."""
    if is_due(priority=priority, is_completed=is_completed, urgency_threshold_at=urgency_threshold_at, now=now):
        return PROMOTIONS[priority]
    return priority
