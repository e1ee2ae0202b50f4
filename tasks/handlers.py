"""Reactions to events of tasks."""

from outbox.registry import handles
from smartflow.events import TaskUrgencyPromoteRequested
from smartflow.kernel.clock import utc_now
from tasks import operations


@handles(TaskUrgencyPromoteRequested.event_type)
def promote_urgent_tasks(event: TaskUrgencyPromoteRequested, *, event_id: str) -> None:
    """Store what readers have seen."""
    operations.promote_urgent_tasks(user_id=event.user_id, task_ids=event.task_ids, now=utc_now())
