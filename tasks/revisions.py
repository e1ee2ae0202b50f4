"""A copy of each user's tasks in the cache, and the revision in the database that says whether it still counts.

The revision is read before the rows, so a reader that a writer overtakes leaves a copy that nobody looks up. No step
after the commit can be lost: the change and its revision are one transaction.
"""

from collections.abc import Callable, Sequence
from typing import Any

from django.core.cache import cache
from django.db import connection

from smartflow.kernel.ids import new_uuid
from tasks.models import TaskRevision

COPY_SECONDS = 24 * 3600
# Larger: copies that take Redis and the reader longer than the database takes.
MOST_COPIED = 2000

Rows = Sequence[tuple[Any, ...]]


def take_revision(*, user_id: int) -> None:
    """
    Give the user's tasks another revision and keep everybody else from writing them until the commit.

    Transaction: the caller's, and its first write. One statement that inserts or updates: two first writes at once
                 would otherwise lock the same absent row and deadlock.
    """
    features = connection.features
    TaskRevision.objects.bulk_create(
        [TaskRevision(user_id=user_id, revision=new_uuid())],
        update_conflicts=True,
        update_fields=["revision"],
        unique_fields=["user"] if features.supports_update_conflicts_with_target else None,
    )


def read_through(*, user_id: int, read: Callable[[], Rows]) -> Rows:
    """
    Return what `read` gives, or the copy of it that was made at the present revision.

    Transaction: none; one query by primary key, and those of `read` without a copy. Works without a cache.
    """
    key = f"tasks:{user_id}"
    revision = TaskRevision.objects.filter(pk=user_id).values_list("revision", flat=True).first()
    if revision is None:
        return read()
    copy = cache.get(key)
    if copy is not None and copy[0] == revision:
        rows: Rows = copy[1]
        return rows
    rows = read()
    if len(rows) <= MOST_COPIED:
        cache.set(key, (revision, list(rows)), COPY_SECONDS)
    return rows
