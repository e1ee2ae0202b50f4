"""The first half of step 2: which rows a relay takes, and which stay behind.

A claim never overtakes within a key: a row is taken only with every earlier pending row of its key. A row that may not
be taken leaves the ready rows, so that the next claim does not read it again: behind a retry it waits for the same
moment, behind a dead letter or a paused type it is held until holds.py lets it go. No lock is held while publishing.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from django.db import connection, transaction
from django.db.models import Min, Q, QuerySet

from outbox.database_errors import repeat_on_conflict
from outbox.models import KeyHold, OutboxMessage, Status
from outbox.registry import blocking_types
from outbox.shards import SHARDS
from smartflow.kernel.ids import new_uuid

# How many batches of rows that may not be taken a claim reads before it leaves the rest to the next one.
_MAX_BLOCKED_BATCHES = 20


@dataclass(frozen=True, slots=True)
class ClaimedRow:
    """What publishing a row needs."""

    id: int
    event_id: str
    biz_type: str
    topic: str
    message_key: str
    payload: str
    retry_count: int
    traceparent: str
    created_at: datetime
    published_at: datetime | None


_COLUMNS = tuple(ClaimedRow.__dataclass_fields__)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """Rows held by one relay until they are settled or the lease ends; per key, oldest first."""

    token: str
    rows: list[ClaimedRow] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Share:
    """The shards a relay looks at, both ends included, and the event types it leaves alone."""

    first: int = 0
    last: int = SHARDS - 1
    paused: frozenset[str] = frozenset()


ALL_SHARDS = Share()


def claim_rows(*, limit: int, lease_seconds: float, now: datetime, share: Share = ALL_SHARDS) -> Claim:
    """
    Claim up to `limit` ready rows for this relay.

    Transaction: opens its own and commits before returning; no lock is held while publishing.
    Order:       by shard, then id; never a row whose key has an earlier pending row outside this claim, nor one behind
                 a dead letter that blocks its key.
    Units:       lease_seconds, database clock.
    Shape:       a Claim, possibly without rows.
    Twice:       safe; an expired lease is claimed again.
    Source:      ADR 0007.
    """
    return repeat_on_conflict(lambda: _claim_once(limit=limit, lease_seconds=lease_seconds, now=now, share=share))


def _claim_once(*, limit: int, lease_seconds: float, now: datetime, share: Share) -> Claim:
    claim = Claim(token=new_uuid())
    in_flight: set[str] = set()
    with transaction.atomic():
        for _ in range(_MAX_BLOCKED_BATCHES):
            candidates = _lock_ready_rows(limit=limit, now=now, share=share, passed_over=in_flight)
            if not candidates:
                break
            takeable, behind = _without_overtakers(candidates, now, share.paused)
            if takeable:
                claim.rows.extend(takeable)
                break
            in_flight |= behind
        if claim.rows:
            OutboxMessage.objects.filter(id__in=[row.id for row in claim.rows]).update(
                claim_token=claim.token, lease_until=now + timedelta(seconds=lease_seconds), updated_at=now
            )
    return claim


def _lock_ready_rows(*, limit: int, now: datetime, share: Share, passed_over: Collection[str]) -> list[ClaimedRow]:
    ready = OutboxMessage.objects.filter(
        Q(lease_until__isnull=True) | Q(lease_until__lte=now),
        ready_shard__range=(share.first, share.last),
    ).order_by("ready_shard", "id")
    if passed_over:
        ready = ready.exclude(message_key__in=passed_over)
    return [ClaimedRow(*row) for row in unlocked(ready).values_list(*_COLUMNS)[:limit]]


def unlocked(rows: QuerySet[OutboxMessage]) -> QuerySet[OutboxMessage]:
    """Lock the rows and pass those that another transaction holds. On SQLite a transaction is the only writer."""
    if connection.features.has_select_for_update_skip_locked:
        return rows.select_for_update(skip_locked=True)
    return rows


def _without_overtakers(
    candidates: Sequence[ClaimedRow], now: datetime, paused: frozenset[str]
) -> tuple[list[ClaimedRow], set[str]]:
    """
    Return the rows that may be taken, and the keys of those that stand behind a row in flight.

    The others leave the ready rows here.
    """
    barriers = _barriers(candidates)
    for row in candidates:
        if row.biz_type in paused and row.id < barriers.get(row.message_key, row.id + 1):
            barriers[row.message_key] = row.id
    if not barriers:
        return list(candidates), set()
    takeable = [row for row in candidates if row.id < barriers.get(row.message_key, row.id + 1)]
    taken = {row.id for row in takeable}
    behind: dict[str, list[int]] = {}
    for row in candidates:
        if row.id not in taken:
            behind.setdefault(row.message_key, []).append(row.id)
    return takeable, _step_aside(behind, barriers, now)


def _barriers(candidates: Sequence[ClaimedRow]) -> dict[str, int]:
    """Return, for each key that has one, the first row that no later one may overtake and that is no candidate."""
    ids = [row.id for row in candidates]
    blocking = Q(status=Status.DEAD, discarded_at__isnull=True, biz_type__in=blocking_types())
    return dict(
        OutboxMessage.objects.filter(
            Q(status=Status.PENDING) | blocking,
            status__in=(Status.PENDING, Status.DEAD),
            message_key__in={row.message_key for row in candidates},
            id__lt=max(ids),
        )
        .exclude(id__in=ids)
        .order_by()
        .values_list("message_key")
        .annotate(first=Min("id"))
    )


def _step_aside(behind: dict[str, list[int]], barriers: dict[str, int], now: datetime) -> set[str]:
    """
    Take rows that may not be published now out of the ready rows; return the keys that are left as they are.

    Otherwise the followers of one row would fill every claim, and rows of other keys would starve behind them.
    Rows behind a row in flight are left alone: that is over in a moment.
    """
    heads = {
        head.pk: head
        for head in OutboxMessage.objects.filter(id__in=[barriers[key] for key in behind]).only(
            "status", "ready_shard", "next_retry_at", "biz_type"
        )
    }
    in_flight: set[str] = set()
    for key, ids in sorted(behind.items()):  # one order for every holder of several keys
        head = heads.get(barriers[key])
        if head is None or (head.ready_shard is not None and head.pk not in ids):
            in_flight.add(key)
        elif head.next_retry_at is not None:
            _leave_ready(ids, next_retry_at=head.next_retry_at, now=now)
        else:
            hold_back(ids=ids, key=key, head_id=head.pk, now=now)
    return in_flight


def _leave_ready(ids: Sequence[int], *, next_retry_at: datetime | None, now: datetime) -> None:
    OutboxMessage.objects.filter(id__in=ids).update(
        ready_shard=None, claim_token=None, lease_until=None, next_retry_at=next_retry_at, updated_at=now
    )


def hold_back(*, ids: Sequence[int], key: str, head_id: int, now: datetime) -> None:
    """
    Hold pending rows of a key behind `head_id` until holds.py finds that it blocks no more.

    Transaction: the caller's, which has locked the rows.
    """
    _leave_ready(ids, next_retry_at=None, now=now)
    KeyHold.objects.update_or_create(
        message_key=key, defaults={"head_id": head_id}, create_defaults={"head_id": head_id, "since": now}
    )
