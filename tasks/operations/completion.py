"""Ticking a task off, and taking that back."""

from datetime import datetime

from django.db import transaction

from smartflow.api.rows import RowReader, execute, moment
from smartflow.events import TaskItemChanged, TaskItemCompleted
from smartflow.kernel.errors import Conflict
from smartflow.kernel.text import noop as _
from tasks.contracts import Completion
from tasks.models import Task
from tasks.operations.facts import append_facts
from tasks.queries import TaskNotFound
from tasks.revisions import take_revision

_COLUMNS = ("is_completed", "completed_at")
_OWN = RowReader(Task, "id = %s AND user_id = %s AND deleted_at IS NULL")
_STORE = "UPDATE tasks SET is_completed = %s, completed_at = %s, updated_at = %s WHERE id = %s"


class TaskNotCompleted(Conflict):
    """There is no completion to take back."""

    code = "40052"
    message = _("The task is not completed.")


def complete_task(*, user_id: int, task_id: int, now: datetime) -> Completion:
    """
    Tick a task off and tell so.

    Transaction: one, behind the user's revision: of two devices at once one completes, and both are told when.
    Twice:       no effect; `completed_at` stays the first one's.
    Raises:      TaskNotFound.
    """
    with transaction.atomic():
        task = _take(user_id, task_id)
        if task.completed_at is not None:
            return Completion(task_id=task_id, completed_at=task.completed_at, was_completed=True)
        task.is_completed, task.completed_at, task.updated_at = True, now, now
        _store(task)
        append_facts(kind=TaskItemCompleted, tasks=[task], changed=_COLUMNS, now=now)
        return Completion(task_id=task_id, completed_at=now, was_completed=False)


def undo_complete_task(*, user_id: int, task_id: int, now: datetime) -> None:
    """
    Open a completed task again and tell so.

    Transaction: one. Twice: raises. Raises: TaskNotFound, TaskNotCompleted.
    """
    with transaction.atomic():
        task = _take(user_id, task_id)
        if not task.is_completed:
            raise TaskNotCompleted
        task.is_completed, task.completed_at, task.updated_at = False, None, now
        _store(task)
        append_facts(kind=TaskItemChanged, tasks=[task], changed=_COLUMNS, now=now)


def _take(user_id: int, task_id: int) -> Task:
    take_revision(user_id=user_id)
    task = _OWN.find(task_id, user_id)
    if task is None:
        raise TaskNotFound
    return task


def _store(task: Task) -> None:
    execute(_STORE, task.is_completed, moment(task.completed_at), moment(task.updated_at), task.pk)
