"""The first half of step 2: which rows a relay takes, and which stay behind.

A claim never overtakes within a key: a row is taken only with every earlier pending row of its key. A row that may not
be taken leaves the ready rows, so that the next claim does not read it again: behind a retry it waits for the same
moment, behind a dead letter or a paused type it is held until holds.py lets it go.

Rows are read without a lock, so that a writer that commits late holds nobody up; one guarded UPDATE takes them.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any, NamedTuple

from django.db import connection, transaction
from django.db.models import Case, DateTimeField, Value, When

from outbox.database_errors import repeat_on_conflict
from outbox.locks import unlocked, update_or_pass
from outbox.models import KeyHold, OutboxMessage, Status
from outbox.registry import blocking_types
from outbox.shards import SHARDS, shard_of
from smartflow.api.rows import execute, moment, read_moment
from smartflow.kernel.ids import new_uuid

# Every event waits for both: put together by the models they take 1.8 ms of the relay's processor time, like this 0.5.
_READY = (
    "SELECT {columns} FROM agent_outbox_messages WHERE ready_shard BETWEEN %s AND %s"
    " AND (lease_until IS NULL OR lease_until <= %s){keys} ORDER BY ready_shard, id LIMIT %s"
)
_TAKE = (
    "UPDATE agent_outbox_messages SET claim_token = %s, lease_until = %s, updated_at = %s"
    " WHERE id IN ({ids}) AND ready_shard IS NOT NULL AND (lease_until IS NULL OR lease_until <= %s)"
)
# Two searches in one statement, for pending rows, from the index alone, and for dead ones. The index is named, because
# with few dead rows MariaDB would rather find them by their status, and sort. `id + 0`: MySQL 8 would enter the index
# once for every key and every id between two of the list, 20,000 times and for three seconds with 500 rows.
_BARRIERS = """
SELECT message_key, MIN(id) FROM agent_outbox_messages {index}
WHERE message_key IN ({keys}) AND status = 'pending' AND id < %s AND id + 0 NOT IN ({ids}) GROUP BY message_key
UNION ALL
SELECT message_key, MIN(id) FROM agent_outbox_messages {index}
WHERE message_key IN ({keys}) AND status = 'dead' AND id < %s AND discarded_at IS NULL AND biz_type IN ({types})
GROUP BY message_key
"""
# For how long a claim goes on through rows that may not be taken. Larger: fewer claims without a row; smaller: a relay
# is sooner back at its heartbeat, which is due every two seconds.
LOOKING_SECONDS = 0.3
# For how long a claim waits for a row that somebody has locked. Larger: such a row holds the relay up for longer.
LOCK_WAIT_SECONDS = 1


class ClaimedRow(NamedTuple):
    """What publishing a row needs: columns of the table, the moments last."""

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


@dataclass(frozen=True, kw_only=True)
class Claim:
    """
    Rows held by one relay until they are settled or the lease ends; per key, oldest first.

    `left_off`: set when time was over before there was anything to take: the shard up to which it has looked.
    """

    token: str
    rows: list[ClaimedRow] = field(default_factory=list)
    left_off: int | None = None


@dataclass(frozen=True, kw_only=True)
class Share:
    """
    The shards a relay looks at, both ends included, and the event types it leaves alone.

    `start`: where it begins; when it has come to the end it goes on at the first, so that no shard starves.
    """

    first: int = 0
    last: int = SHARDS - 1
    start: int = 0
    paused: frozenset[str] = frozenset()

    def ranges(self) -> list[tuple[int, int]]:
        """Return the shards in the order of looking, as ranges with both ends included."""
        start = max(self.first, min(self.start, self.last))
        return [(start, self.last)] if start == self.first else [(start, self.last), (self.first, start - 1)]


ALL_SHARDS = Share()


def claim_rows(*, limit: int, lease_seconds: float, now: datetime, share: Share = ALL_SHARDS) -> Claim:
    """
    Claim up to `limit` ready rows for this relay.

    Transaction: none but that of the UPDATE, which takes only rows that are still free; no lock outlives it.
    Order:       by shard, then id; never a row whose key has an earlier pending row outside this claim, nor one behind
                 a dead letter that blocks its key.
    Units:       lease_seconds, database clock.
    Shape:       a Claim, possibly without rows, after LOOKING_SECONDS and a batch at most.
    Twice:       safe; an expired lease is claimed again.
    Source:      ADR 0008.
    """
    in_flight: set[str] = set()
    until = monotonic() + LOOKING_SECONDS
    while True:
        candidates = _read_ready_rows(limit=limit, now=now, share=share, passed_over=in_flight)
        if not candidates:
            return Claim(token="")
        takeable, behind = _without_overtakers(candidates, now, share.paused)
        if takeable:
            claim = _take(takeable, lease_until=now + timedelta(seconds=lease_seconds), now=now)
            if claim.rows:
                return claim
        in_flight |= behind
        if monotonic() >= until:
            return Claim(token="", left_off=shard_of(candidates[-1].message_key))


def _read_ready_rows(*, limit: int, now: datetime, share: Share, passed_over: Collection[str]) -> list[ClaimedRow]:
    keys = f" AND message_key NOT IN ({_marks(len(passed_over))})" if passed_over else ""
    sql = _READY.format(columns=", ".join(ClaimedRow._fields), keys=keys)
    rows: list[ClaimedRow] = []
    with connection.cursor() as cursor:
        for first, last in share.ranges():
            cursor.execute(sql, [first, last, moment(now), *passed_over, limit - len(rows)])
            rows.extend(map(_as_claimed, cursor.fetchall()))
            if len(rows) == limit:
                break
    return rows


def _as_claimed(row: tuple[Any, ...]) -> ClaimedRow:
    *others, created_at, published_at = row
    if connection.vendor == "mysql":  # its moments are of UTC and do not say so; Django's own way there is a long one
        moments = created_at.replace(tzinfo=UTC), published_at and published_at.replace(tzinfo=UTC)
    else:
        moments = read_moment(created_at), read_moment(published_at)
    return ClaimedRow._make((*others, *moments))


def _take(rows: Sequence[ClaimedRow], *, lease_until: datetime, now: datetime) -> Claim:
    """Put this relay's token on the rows that are still free; another may have been faster with some."""
    token, ids = new_uuid(), [row.id for row in rows]

    def take(ids: Sequence[int]) -> int:
        free = (token, moment(lease_until), moment(now), *ids, moment(now))
        return execute(_TAKE.format(ids=_marks(len(ids))), *free) if ids else 0

    def take_unlocked() -> int:
        with transaction.atomic():
            return take(list(unlocked(OutboxMessage.objects.filter(id__in=ids)).values_list("id", flat=True)))

    # A row whose lease is over may be in a handler's hand for long, and others of the batch are nobody's.
    taken = update_or_pass(lambda: take(ids), without_locked=take_unlocked, seconds=LOCK_WAIT_SECONDS)
    if taken == len(ids):
        return Claim(token=token, rows=list(rows))
    return Claim(token=token, rows=_without_gaps(rows, token, now))


def _without_gaps(rows: Sequence[ClaimedRow], token: str, now: datetime) -> list[ClaimedRow]:
    """Return this claim's rows up to the first of each key that another has; give the rows behind such a one back."""
    held = OutboxMessage.objects.filter(id__in=[row.id for row in rows], claim_token=token)
    mine = set(held.values_list("id", flat=True))
    broken = {row.message_key: row.id for row in reversed(rows) if row.id not in mine}
    kept = [row for row in rows if row.id < broken.get(row.message_key, row.id + 1)]
    give_back = mine - {row.id for row in kept}
    if give_back:
        behind = OutboxMessage.objects.filter(id__in=give_back, claim_token=token)
        repeat_on_conflict(lambda: behind.update(claim_token=None, lease_until=None, updated_at=now))
    return kept


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
    return takeable, repeat_on_conflict(lambda: _step_aside(behind, barriers, now))


def _barriers(candidates: Sequence[ClaimedRow]) -> dict[str, int]:
    """Return, for each key that has one, the first row that no later one may overtake and that is no candidate."""
    ids, keys, blocking = [row.id for row in candidates], {row.message_key for row in candidates}, blocking_types()
    # A type that nobody has, where there is none: an empty list is no SQL.
    chosen: list[str | int] = [*keys, max(ids), *ids, *keys, max(ids), *(blocking or [""])]
    sql = _BARRIERS.format(
        index="FORCE INDEX (idx_outbox_key_status)" if connection.vendor == "mysql" else "",
        keys=_marks(len(keys)),
        ids=_marks(len(ids)),
        types=_marks(len(blocking) or 1),
    )
    barriers: dict[str, int] = {}
    with connection.cursor() as cursor:
        cursor.execute(sql, chosen)
        for key, first in cursor.fetchall():
            barriers[key] = min(first, barriers.get(key, first))
    return barriers


def _marks(count: int) -> str:
    return ", ".join(["%s"] * count)


def _step_aside(behind: dict[str, list[int]], barriers: dict[str, int], now: datetime) -> set[str]:
    """
    Take rows that may not be published now out of the ready rows; return the keys that are left as they are.

    Otherwise the followers of one row would fill every claim, and rows of other keys would starve behind them.
    Rows behind a row in flight are left alone: that is over in a moment.
    Transaction: its own; rows that somebody else has in hand, or took meanwhile, are left alone.
    """
    with transaction.atomic():
        heads = {
            head.pk: head
            for head in OutboxMessage.objects.filter(id__in=[barriers[key] for key in behind]).only(
                "status", "ready_shard", "next_retry_at", "biz_type"
            )
        }
        free = _lock_free({pk for ids in behind.values() for pk in ids}, now)
        in_flight: set[str] = set()
        waiting: dict[datetime, list[int]] = {}
        held: dict[str, int] = {}
        for key, candidates in behind.items():
            head, ids = heads.get(barriers[key]), [pk for pk in candidates if pk in free]
            if head is None or _moves_on(head, candidates):
                in_flight.add(key)
                free.difference_update(ids)
            elif head.next_retry_at is not None:
                waiting.setdefault(head.next_retry_at, []).extend(ids)
                free.difference_update(ids)
            elif ids:
                held[key] = head.pk
        _let_wait(waiting, now)
        hold_back(ids=free, heads=held, now=now)
    return in_flight


def _moves_on(head: OutboxMessage, candidates: Collection[int]) -> bool:
    """Tell whether a row is in flight, or is through by now; a paused one is a candidate itself and moves nowhere."""
    is_through = head.status in (Status.PUBLISHED, Status.CONSUMED)
    return is_through or (head.ready_shard is not None and head.pk not in candidates)


def _lock_free(ids: Collection[int], now: datetime) -> set[int]:
    # By primary key alone, as everybody locks these rows; so what the row says is looked at here.
    rows = unlocked(OutboxMessage.objects.filter(id__in=ids).order_by("id"))
    return {
        pk
        for pk, ready_shard, lease_until in rows.values_list("id", "ready_shard", "lease_until")
        if ready_shard is not None and (lease_until is None or lease_until <= now)
    }


def _let_wait(waiting: Mapping[datetime, Sequence[int]], now: datetime) -> None:
    """Let the rows wait for the moment they stand under; one statement, because each key may have its own."""
    if waiting:
        moments = [When(id__in=ids, then=Value(at, DateTimeField())) for at, ids in waiting.items()]
        _leave_ready([pk for ids in waiting.values() for pk in ids], next_retry_at=Case(*moments), now=now)


def _leave_ready(ids: Collection[int], *, next_retry_at: Case | None, now: datetime) -> None:
    OutboxMessage.objects.filter(id__in=ids).update(
        ready_shard=None, claim_token=None, lease_until=None, next_retry_at=next_retry_at, updated_at=now
    )


def hold_back(*, ids: Collection[int], heads: Mapping[str, int], now: datetime) -> None:
    """
    Hold pending rows behind the row that `heads` names for their key, until holds.py finds that it blocks no more.

    Transaction: the caller's, which has locked the rows. Writes the keys' KeyHold in the order of the keys, as
                 everyone takes the locks of several; two statements, however many keys.
    """
    if not ids:
        return
    _leave_ready(ids, next_retry_at=None, now=now)
    KeyHold.objects.bulk_create(
        [KeyHold(message_key=key, head_id=head_id, since=now) for key, head_id in sorted(heads.items())],
        update_conflicts=True,
        update_fields=["head_id"],
        unique_fields=["message_key"] if connection.features.supports_update_conflicts_with_target else None,
    )
