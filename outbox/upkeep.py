"""What keeps the table in order beside the flow: prune what is finished, and records that nobody looks at any more.

Called by jobs. Every function is bounded; the flow never waits for one.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import transaction

from outbox.database_errors import repeat_on_conflict
from outbox.models import Attempt, MinuteCount, OutboxMessage, Status, Worker
from outbox.walk import rows_of_status
from smartflow.kernel.counts import BoundedCount

# Larger: fewer statements, and longer transactions beside the flow's.
PRUNE_BATCH = 1000
SMALLEST_PRUNE_BATCH = 100
SLOW_BATCH_SECONDS = 0.5
MINUTES_KEPT = timedelta(days=7)
# As long as the console says that a worker is gone.
GONE_WORKERS_KEPT = timedelta(hours=1)


@dataclass(frozen=True, kw_only=True)
class PruneStep:
    """What one batch deleted, and how far the walk came."""

    deleted: int
    last_id: int
    is_end: bool


def prune_consumed(*, older_than: datetime, limit: int = PRUNE_BATCH) -> int:
    """Delete those of the `limit` oldest consumed rows that were consumed before `older_than`; return how many."""
    return prune_step(status=Status.CONSUMED, older_than=older_than, limit=limit).deleted


def prune_step(*, status: str, older_than: datetime, after_id: int = 0, limit: int = PRUNE_BATCH) -> PruneStep:
    """
    Delete finished rows and their attempts among the next `limit` rows of a status behind `after_id`.

    Finished is `consumed` before that moment; of the dead, what an operator discarded before it, and only when an
    operator asks. The end is where rows were written later than that: no row is finished before it is written.
    Transaction: its own, by primary key.
    Source:      idx_outbox_status_id; no index is on the moments, so rows are looked at here.
    """
    look = _look_for_finished(status, older_than, after_id, limit)
    deleted = repeat_on_conflict(lambda: _delete(look.ids, status)) if look.ids else 0
    return PruneStep(deleted=deleted, last_id=look.last_id, is_end=look.is_end)


@dataclass(frozen=True, kw_only=True)
class _FinishedLook:
    ids: list[int]
    last_id: int
    is_end: bool


def _look_for_finished(status: str, older_than: datetime, after_id: int, limit: int) -> _FinishedLook:
    if status not in (Status.CONSUMED, Status.DEAD):
        raise ValueError(f"rows that are {status} are not finished")
    moment = "consumed_at" if status == Status.CONSUMED else "discarded_at"
    rows = rows_of_status(status=status).filter(id__gt=after_id)
    seen = list(rows.values_list("id", moment, "created_at")[:limit])
    return _FinishedLook(
        ids=[pk for pk, finished_at, _ in seen if finished_at is not None and finished_at < older_than],
        last_id=seen[-1][0] if seen else after_id,
        is_end=len(seen) < limit or seen[-1][2] >= older_than,
    )


def count_prunable(*, older_than: datetime, status: str = Status.CONSUMED, cap: int = 10_000) -> BoundedCount:
    """Count what prune would delete, up to `cap`, without deleting it; as prune_step reads."""
    found, after_id, is_end = 0, 0, False
    while not is_end and found <= cap:
        look = _look_for_finished(status, older_than, after_id, PRUNE_BATCH)
        found, after_id, is_end = found + len(look.ids), look.last_id, look.is_end
    return BoundedCount.of(found, cap=cap)


def _delete(ids: Sequence[int], status: str) -> int:
    with transaction.atomic():
        if status == Status.DEAD:  # unlike `consumed` not final: an operator may just have requeued one
            rows = OutboxMessage.objects.select_for_update().filter(id__in=ids).order_by("id")
            states = rows.values_list("id", "status", "discarded_at")
            ids = [pk for pk, now_status, gone in states if now_status == Status.DEAD and gone is not None]
        Attempt.objects.filter(message_id__in=ids).delete()
        deleted, _ = OutboxMessage.objects.filter(id__in=ids).delete()
    return deleted


def prune(
    *,
    older_than: datetime,
    seconds: float,
    status: str = Status.CONSUMED,
    wait: Callable[[float], object] = time.sleep,
    tell: Callable[[int], object] = lambda deleted: None,
) -> int:
    """
    Delete finished rows for up to `seconds` and return how many; `tell` hears the sum after every batch.

    Rests after each batch as long as the batch took, so that half of the database's time is the flow's; a batch that
    was slow makes the next one smaller and the rest longer. Ends when `wait` returns true: the process is stopping.
    Twice: safe, also beside itself.
    """
    until = time.monotonic() + seconds
    deleted, after_id, limit = 0, 0, PRUNE_BATCH
    while True:
        started = time.monotonic()
        step = prune_step(status=status, older_than=older_than, after_id=after_id, limit=limit)
        took = time.monotonic() - started
        deleted, after_id = deleted + step.deleted, step.last_id
        tell(deleted)
        if step.is_end or time.monotonic() + took >= until:
            return deleted
        is_slow = took > SLOW_BATCH_SECONDS
        limit = max(limit // 2, SMALLEST_PRUNE_BATCH) if is_slow else min(limit * 2, PRUNE_BATCH)
        if step.deleted and wait(took * 3 if is_slow else took):
            return deleted


def prune_records(*, now: datetime) -> int:
    """Delete what the console shows no more: old minutes, and workers that are long gone; return how many."""
    minutes, _ = MinuteCount.objects.filter(minute__lt=now - MINUTES_KEPT).delete()
    workers, _ = Worker.objects.filter(heartbeat_at__lt=now - GONE_WORKERS_KEPT).delete()
    return minutes + workers
