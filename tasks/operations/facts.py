"""Appends what happened to a task, in the transaction in which it happened.

The key is the user: whoever follows a user's tasks sees their changes in the order of their commits, across tasks, and
the writer holds the user's revision anyway. A key per task would order less and cost the same.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from outbox.append import NewEvent, append_events
from smartflow.events import TaskFact
from tasks.models import Task


def user_key(*, user_id: int) -> str:
    """Return the key of a user's task events."""
    return f"user:{user_id}"


def append_facts(*, kind: type[TaskFact], tasks: Iterable[Task], changed: Sequence[str], now: datetime) -> None:
    """Append one fact a task; each says what the task is like now. Transaction: the caller's, with the revision."""
    append_events(
        events=[NewEvent(event=_fact(kind, task, changed, now), key=user_key(user_id=task.user_id)) for task in tasks],
        now=now,
    )


def _fact(kind: type[TaskFact], task: Task, changed: Sequence[str], now: datetime) -> TaskFact:
    return kind(
        user_id=task.user_id,
        task_id=task.pk,
        title=task.title,
        priority=task.priority,
        estimated_sections=task.estimated_sections,
        is_completed=task.is_completed,
        is_deleted=task.deleted_at is not None,
        deadline_at=_moment(task.deadline_at),
        urgency_threshold_at=_moment(task.urgency_threshold_at),
        changed=sorted(changed),
        occurred_at=now.astimezone(UTC).isoformat(),
    )


def _moment(value: datetime | None) -> str | None:
    return value.astimezone(UTC).isoformat() if value else None
