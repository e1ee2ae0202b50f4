"""Deleting a task, bringing it back for 30 days, and deleting the row behind that."""

from datetime import datetime, timedelta

from django.db import transaction

from smartflow.events import TaskItemChanged, TaskItemDeleted
from smartflow.kernel.errors import DomainError
from smartflow.kernel.text import noop as _
from tasks.contracts import UNDO_DAYS, TaskView
from tasks.models import Task
from tasks.operations.facts import append_facts
from tasks.queries import get_task
from tasks.revisions import take_revision

_UNDO = timedelta(days=UNDO_DAYS)
PRUNED_AT_ONCE = 500


class TaskAlreadyDeleted(DomainError):
    """There is nothing to delete; whoever asked has what they wanted."""

    code = "10003"
    message = _("The task is already deleted.")


def delete_task(*, user_id: int, task_id: int, now: datetime) -> None:
    """
    Take a task out of every list and tell so; restore_task brings it back for 30 days.

    Transaction: one. Twice: raises, and the first time's moment stays.
    Raises:      TaskAlreadyDeleted, also for a task that never was or is somebody else's.
    """
    with transaction.atomic():
        take_revision(user_id=user_id)
        task = Task.objects.filter(pk=task_id, user_id=user_id, deleted_at__isnull=True).first()
        if task is None:
            raise TaskAlreadyDeleted
        task.deleted_at = task.updated_at = now
        task.save(update_fields=["deleted_at", "updated_at"])
        append_facts(kind=TaskItemDeleted, tasks=[task], changed=["deleted_at"], now=now)


def restore_task(*, user_id: int, task_id: int, now: datetime) -> TaskView:
    """
    Bring a deleted task back as it was and tell so.

    Transaction: one. Twice: no effect. Raises: TaskNotFound, also more than 30 days after the deletion.
    """
    with transaction.atomic():
        take_revision(user_id=user_id)
        task = Task.objects.filter(pk=task_id, user_id=user_id, deleted_at__gt=now - _UNDO).first()
        if task is not None:
            task.deleted_at, task.updated_at = None, now
            task.save(update_fields=["deleted_at", "updated_at"])
            append_facts(kind=TaskItemChanged, tasks=[task], changed=["deleted_at"], now=now)
        return get_task(user_id=user_id, task_id=task_id, now=now)


def prune_deleted_tasks(*, now: datetime) -> int:
    """
    Delete rows that nobody can bring back any more, at most PRUNED_AT_ONCE; return how many.

    Transaction: one statement, in which a row that came back meanwhile stays.
    Plan:        an index that begins with the moment of the deletion.
    """
    behind = Task.objects.filter(deleted_at__lte=now - _UNDO)
    ids = list(behind.order_by("deleted_at").values_list("pk", flat=True)[:PRUNED_AT_ONCE])
    return behind.filter(pk__in=ids).delete()[0] if ids else 0
