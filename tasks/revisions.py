"""Copies of what users have, in the cache, and the revisions in the database that say whether they still count.

A revision is read before the rows, so a reader that a writer overtakes leaves a copy that nobody looks up. No step
after the commit can be lost: the change and its revision are one transaction.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, TypeVar

from django.core.cache import cache
from django.db import connection

from smartflow.api.rows import execute
from smartflow.kernel.ids import new_uuid
from tasks.models import TaskRevision

# Larger: copies that take Redis and the reader longer than the database takes.
MOST_COPIED = 2000

_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part of what a user has, with a revision of its own: `column` of TaskRevision."""

    column: str
    # Of the copies' keys; another one when what is copied gets another shape, because a release finds old copies.
    prefix: str
    seconds: int


TASKS: Final = Part(column="revision", prefix="tasks", seconds=24 * 3600)
CLASSES: Final = Part(column="class_revision", prefix="task-classes", seconds=1800)


def take_revision(*, user_id: int, of: Part = TASKS) -> None:
    """
    Give that part of what the user has another revision and keep everybody else from writing until the commit.

    Transaction: the caller's, and its first write. One statement that inserts or updates: two first writes at once
                 would otherwise lock the same absent row and deadlock.
    """
    revision = new_uuid()
    execute(_upsert(of.column, connection.vendor), user_id, revision, revision)


@lru_cache
def _upsert(column: str, vendor: str) -> str:
    on_conflict = "ON DUPLICATE KEY UPDATE" if vendor == "mysql" else "ON CONFLICT (user_id) DO UPDATE SET"
    other = CLASSES.column if column == TASKS.column else TASKS.column
    return (
        f"INSERT INTO task_revisions (user_id, {column}, {other}) VALUES (%s, %s, '')"  # noqa: S608 - our own names
        f" {on_conflict} {column} = %s"
    )


def read_through(*, user_id: int, read: Callable[[], Sequence[_T]], of: Part = TASKS, name: str = "") -> Sequence[_T]:
    """
    Return what `read` gives, or the copy of it that was made at the present revision; `name` tells copies apart.

    Transaction: none; one query by primary key, and those of `read` without a copy. Works without a cache.
    """
    key = f"{of.prefix}:{user_id}:{name}"
    revision = TaskRevision.objects.filter(pk=user_id).values_list(of.column, flat=True).first()
    if revision is None:
        return read()
    copy = cache.get(key)
    if copy is not None and copy[0] == revision:
        rows: Sequence[_T] = copy[1]
        return rows
    rows = read()
    if len(rows) <= MOST_COPIED:
        cache.set(key, (revision, list(rows)), of.seconds)
    return rows
