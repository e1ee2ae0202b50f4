"""Adding a task and changing it."""

from datetime import datetime
from typing import Any, cast

from django.db import transaction

from smartflow.events import TaskItemChanged, TaskItemCreated
from smartflow.kernel.errors import Invalid
from smartflow.kernel.text import noop as _
from tasks.contracts import UNSET, NewTask, Quadrant, TaskChange, TaskView
from tasks.defaults import default_priority, default_threshold, normal_sections
from tasks.models import Task
from tasks.operations.facts import append_facts
from tasks.queries import TaskNotFound, view_task
from tasks.revisions import take_revision
from tasks.urgency import is_due

TITLE_MAX_CHARACTERS = 255
_PRIORITIES = frozenset(Quadrant)


class TaskTitleInvalid(Invalid):
    """The title is blank or too long."""

    message = _("Give a title of 1 to 255 characters.")


class PriorityInvalid(Invalid):
    """The priority is none of the four."""

    code = "40018"
    message = _("Give a priority from 1 to 4.")


class NothingToChange(Invalid):
    """The change names no column."""

    code = "40063"
    message = _("Name at least one field to change.")


def create_task(*, user_id: int, task: NewTask, now: datetime) -> TaskView:
    """
    Add a task, with the defaults of tasks/defaults.py where nothing was given, and tell so.

    Transaction: one. Twice: adds another. Raises: TaskTitleInvalid, PriorityInvalid.
    """
    priority = task.priority
    if priority is None:
        priority = default_priority(deadline_at=task.deadline_at, now=now)
    _check_priority(priority)
    threshold = task.urgency_threshold_at
    if threshold is UNSET:
        threshold = default_threshold(priority=priority, deadline_at=task.deadline_at)
    row = Task(
        user_id=user_id,
        title=_checked_title(task.title),
        priority=priority,
        deadline_at=task.deadline_at,
        urgency_threshold_at=cast(datetime | None, threshold),
        estimated_sections=normal_sections(wanted=task.estimated_sections),
        created_at=now,
        updated_at=now,
    )
    given = ("title", "priority", "deadline_at", "urgency_threshold_at", "estimated_sections")
    with transaction.atomic():
        take_revision(user_id=user_id)
        row.save(force_insert=True)
        append_facts(kind=TaskItemCreated, tasks=[row], changed=given, now=now)
    return view_task(task=row, now=now)


def update_task(*, user_id: int, task_id: int, change: TaskChange, now: datetime) -> TaskView:
    """
    Change what was given of a task, clear what was given as None, and tell what differs.

    A quadrant chosen by hand stays: a threshold that would at once move the task out of it is cleared with it.
    Transaction: one. Twice: no effect, and nothing is told.
    Raises:      NothingToChange, TaskTitleInvalid, PriorityInvalid, TaskNotFound.
    """
    values = _checked_values(change)
    with transaction.atomic():
        take_revision(user_id=user_id)
        row = Task.objects.filter(pk=task_id, user_id=user_id, deleted_at__isnull=True).first()
        if row is None:
            raise TaskNotFound
        changed = _assign(row, values)
        if "deadline_at" in changed:
            row.due_soon_told_at = None
        if "priority" in values and "urgency_threshold_at" not in values and _is_due(row, now):
            changed |= _assign(row, {"urgency_threshold_at": None})
        if changed:
            row.updated_at = now
            row.save(update_fields=[*changed, "due_soon_told_at", "updated_at"])
            append_facts(kind=TaskItemChanged, tasks=[row], changed=sorted(changed), now=now)
    return view_task(task=row, now=now)


def _checked_values(change: TaskChange) -> dict[str, Any]:
    values = change.values()
    if not values:
        raise NothingToChange
    if "title" in values:
        values["title"] = _checked_title(values["title"])
    if "priority" in values:
        _check_priority(values["priority"])
    if "estimated_sections" in values:
        values["estimated_sections"] = normal_sections(wanted=values["estimated_sections"])
    return values


def _checked_title(title: str) -> str:
    title = title.strip()
    if not 1 <= len(title) <= TITLE_MAX_CHARACTERS:
        raise TaskTitleInvalid(fields={"title": TaskTitleInvalid.message})
    return title


def _check_priority(priority: int) -> None:
    if priority not in _PRIORITIES:
        raise PriorityInvalid(fields={"priority_group": PriorityInvalid.message})


def _assign(row: Task, values: dict[str, Any]) -> set[str]:
    """Set the values and return the names of those that differ."""
    changed = {name for name, value in values.items() if getattr(row, name) != value}
    for name in changed:
        setattr(row, name, values[name])
    return changed


def _is_due(row: Task, now: datetime) -> bool:
    return is_due(
        priority=row.priority,
        is_completed=row.is_completed,
        urgency_threshold_at=row.urgency_threshold_at,
        now=now,
    )
