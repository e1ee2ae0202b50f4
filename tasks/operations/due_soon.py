"""Telling that a deadline is near: once for each deadline, by a periodic job; notifications follow the event."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from itertools import groupby
from operator import itemgetter

from django.db import transaction

from smartflow.events import TaskItemDueSoon
from tasks.models import Task
from tasks.operations.facts import append_facts
from tasks.queries import list_due_soon
from tasks.revisions import take_revision

# What one pass tells; each user's part is one transaction. Larger: a longer pass. Smaller: when a whole university has
# the same deadline, the last student hears later.
TOLD_AT_ONCE = 1000


def tell_due_soon(*, within: timedelta, now: datetime) -> int:
    """
    Tell of every open task whose deadline comes within that time, at most TOLD_AT_ONCE; return how many.

    A task that was told of is told of again when its deadline was changed, and only then.
    Transaction: one a user, behind the user's revision: what is completed, deleted, moved or told of by another worker
                 meanwhile is left out.
    Twice:       no effect.
    """
    near = sorted(list_due_soon(now=now, until=now + within, limit=TOLD_AT_ONCE))
    return sum(
        _tell_user(user_id, [task_id for _user_id, task_id in rows], now, now + within)
        for user_id, rows in groupby(near, key=itemgetter(0))
    )


def _tell_user(user_id: int, task_ids: Iterable[int], now: datetime, until: datetime) -> int:
    with transaction.atomic():
        take_revision(user_id=user_id)
        tasks = list(
            Task.objects.filter(
                pk__in=task_ids,
                user_id=user_id,
                deleted_at__isnull=True,
                is_completed=False,
                due_soon_told_at__isnull=True,
                deadline_at__gt=now,
                deadline_at__lte=until,
            ).order_by("deadline_at", "id")
        )
        Task.objects.filter(pk__in=[task.pk for task in tasks]).update(due_soon_told_at=now)
        append_facts(kind=TaskItemDueSoon, tasks=tasks, changed=(), now=now)
    return len(tasks)
