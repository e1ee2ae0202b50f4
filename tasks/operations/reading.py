"""Reads with one thing to leave behind: the request to store what became urgent meanwhile."""

from collections.abc import Sequence
from datetime import datetime

from tasks.contracts import Page, TaskFilter, TaskPage, TaskView
from tasks.operations.promotion import request_promotion
from tasks.queries import list_page, list_tasks


def show_tasks(*, user_id: int, now: datetime) -> list[TaskView]:
    """Return all of the user's tasks, as queries.list_tasks, and ask for what became urgent to be stored."""
    tasks = list_tasks(user_id=user_id, now=now)
    _request_for(user_id, tasks, now)
    return tasks


def show_page(*, user_id: int, wanted: TaskFilter, page: Page, now: datetime) -> TaskPage:
    """Return one page of the user's tasks, as queries.list_page, and ask for what became urgent to be stored."""
    found = list_page(user_id=user_id, wanted=wanted, page=page, now=now)
    _request_for(user_id, found.tasks, now)
    return found


def _request_for(user_id: int, tasks: Sequence[TaskView], now: datetime) -> None:
    due = [task.row.id for task in tasks if task.priority != task.row.priority]
    if due:
        request_promotion(user_id=user_id, task_ids=due, now=now)
