"""Storing what readers see already: tasks whose threshold has passed.

Readers ask for it by an event, a claim each user and task, so that a busy page asks once in two minutes; a periodic job
finds what no reader saw. Neither is needed for a list to be right.
"""

import logging
from collections.abc import Sequence
from datetime import UTC, datetime

from django.core.cache import cache
from django.db import DatabaseError, InterfaceError, transaction
from django.db.models import Case, QuerySet, Value, When

from outbox.append import append_event
from smartflow.events import TaskItemChanged, TaskUrgencyPromoteRequested
from tasks.models import Task
from tasks.operations.facts import append_facts
from tasks.queries import list_users_with_due_tasks
from tasks.revisions import take_revision
from tasks.urgency import PROMOTIONS

logger = logging.getLogger(__name__)

# Longer: a lost request is made up for later, by the job. Shorter: more requests while a consumer is behind.
CLAIM_SECONDS = 120
# What one read claims; each is a trip to Redis, and the job takes the rest.
MOST_CLAIMED = 20
USERS_SWEPT_AT_ONCE = 200
# What one transaction promotes of a user's tasks; it writes an event each.
MOST_PROMOTED = 500


def request_promotion(*, user_id: int, task_ids: Sequence[int], now: datetime) -> list[int]:
    """
    Ask for tasks to be promoted, those that nobody asked for within CLAIM_SECONDS, and return which.

    Transaction: one of its own, and nothing but the event in it: it waits for no writer of the user's. Without a cache
                 nothing is asked for, and the periodic job does it.
    Raises:      nothing: a reader has its answer already. What fails is asked for by the next read.
    """
    claims = {_claim_of(user_id, task_id): task_id for task_id in task_ids[:MOST_CLAIMED]}
    won = {key: task_id for key, task_id in claims.items() if cache.add(key, 1, CLAIM_SECONDS)}
    if not won:
        return []
    event = TaskUrgencyPromoteRequested(
        user_id=user_id, task_ids=sorted(won.values()), triggered_at=now.astimezone(UTC).isoformat()
    )
    try:
        with transaction.atomic():
            # Not the user's key: whoever appends under that holds the user's revision until the commit. This one has
            # one writer, because nobody else asks for the same task meanwhile.
            append_event(event=event, key=f"promotion:{event.task_ids[0]}", now=now)
    except (DatabaseError, InterfaceError):
        cache.delete_many(list(won))
        logger.info("Urgent tasks were not asked to be promoted; the next read asks again", extra={"user_id": user_id})
        return []
    return event.task_ids


def promote_urgent_tasks(*, user_id: int, task_ids: Sequence[int] | None = None, now: datetime) -> int:
    """
    Store the priority of the user's tasks whose threshold has passed, of these or of all, at most MOST_PROMOTED.

    Shape:       how many were promoted.
    Transaction: one, also the caller's. One conditional UPDATE behind the user's revision.
    Twice:       no effect, and no revision is taken: what is promoted is not due any more.
    """
    with transaction.atomic():
        if not _due(user_id, task_ids, now).exists():
            return 0
        take_revision(user_id=user_id)
        ids = list(_due(user_id, task_ids, now).order_by("id").values_list("pk", flat=True)[:MOST_PROMOTED])
        higher = Case(*[When(priority=lower, then=Value(upper)) for lower, upper in PROMOTIONS.items()])
        _due(user_id, ids, now).update(priority=higher, updated_at=now)
        promoted = Task.objects.filter(pk__in=ids).order_by("id")
        append_facts(kind=TaskItemChanged, tasks=promoted, changed=["priority"], now=now)
        return len(ids)


def promote_due_tasks(*, now: datetime) -> int:
    """
    Do that for every user who has such tasks, at most USERS_SWEPT_AT_ONCE; return how many tasks.

    Transaction: one a user.
    """
    users = list_users_with_due_tasks(now=now, limit=USERS_SWEPT_AT_ONCE)
    return sum(promote_urgent_tasks(user_id=user_id, now=now) for user_id in users)


def _due(user_id: int, task_ids: Sequence[int] | None, now: datetime) -> QuerySet[Task]:
    due = Task.objects.filter(
        user_id=user_id,
        deleted_at__isnull=True,
        is_completed=False,
        urgency_threshold_at__lte=now,
        priority__in=list(PROMOTIONS),
    )
    return due if task_ids is None else due.filter(pk__in=task_ids)


def _claim_of(user_id: int, task_id: int) -> str:
    return f"task-promotion:{user_id}:{task_id}"
