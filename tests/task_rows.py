"""Tasks and task classes for tests, through the product's own operations."""

from datetime import UTC, date, datetime, timedelta

from smartflow.kernel.ids import new_uuid
from tasks import operations
from tasks.contracts import ClassDraft, ClassMode, ItemDraft, NewTask, Strategy

NOW = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)
PASSED, AHEAD = NOW - timedelta(minutes=1), NOW + timedelta(days=3)


def add_task(user, title="Homework", *, priority=3, now=NOW, **values):
    """Return the id of a new task."""
    task = NewTask(title=title, priority=priority, **values)
    return operations.create_task(user_id=user.pk, task=task, now=now).row.id


def add_deleted_task(user, *, now=NOW, **values):
    """Return the id of a task that was deleted."""
    task_id = add_task(user, now=now, **values)
    operations.delete_task(user_id=user.pk, task_id=task_id, now=now)
    return task_id


def draft(*items, name="Linear algebra", **values):
    """Return a task class with items, given as contents or as (id, content)."""
    pairs = [item if isinstance(item, tuple) else (None, item) for item in items]
    wanted = {
        "mode": ClassMode.MANUAL,
        "start_date": date(2026, 3, 2),
        "end_date": date(2026, 6, 30),
        "subject_type": "mixed",
        "difficulty_level": "medium",
        "cognitive_intensity": "",
        "total_slots": 10,
        "allow_filler_course": True,
        "strategy": Strategy.STEADY,
        "excluded_slots": (),
        "excluded_days_of_week": (),
    } | values
    drafts = tuple(ItemDraft(id=pk, order=n, content=text) for n, (pk, text) in enumerate(pairs, start=1))
    return ClassDraft(name=name, items=values.pop("items", drafts), **{k: v for k, v in wanted.items() if k != "items"})


def add_class(user, *items, now=NOW, **values):
    """Return a new task class."""
    return operations.add_class(user_id=user.pk, draft=draft(*(items or ("One", "Two", "Three")), **values), now=now)


def key():
    """Return the header of a write that nobody repeats."""
    return {"X-Idempotency-Key": new_uuid()}
