"""Step 2: claim → publish → mark published. One pass is one function; any number may run at once.

A claim never overtakes within a key: a row is taken only with every earlier pending row of its key, so a row that
waits for its retry holds back the rows behind it. No lock is held while publishing.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial

from django.db import connection, transaction
from django.db.models import Min, Q, QuerySet

from outbox.database_errors import repeat_on_conflict
from outbox.envelope import EnvelopeUnreadable, encode_wire
from outbox.models import OutboxMessage, Status
from outbox.transports import OutgoingMessage, PublishFailure, Transport
from smartflow.kernel.clock import Clock
from smartflow.kernel.ids import new_uuid

logger = logging.getLogger(__name__)

# After a broker's failure; the attempt is not counted, because it was not the row's fault.
UNAVAILABLE_WAIT_SECONDS = 1.0
# How many batches of rows that may not be taken yet a claim parks before it looks past their keys altogether.
_MAX_BLOCKED_BATCHES = 20


@dataclass(frozen=True, kw_only=True)
class ClaimedRow:
    """What publishing a row needs."""

    id: int
    event_id: str
    topic: str
    message_key: str
    payload: str


@dataclass(frozen=True, kw_only=True)
class Claim:
    """Rows held by one relay until they are settled or the lease ends; oldest first."""

    token: str
    rows: list[ClaimedRow] = field(default_factory=list)


@dataclass(kw_only=True)
class PassResult:
    """What one pass did; `is_transport_down` when it stopped because of the transport."""

    published: int = 0
    dead: int = 0
    fenced: int = 0
    is_transport_down: bool = False


def run_pass(
    *, transport: Transport, clock: Clock, batch_size: int, lease_seconds: float, publish_seconds: float, seconds: float
) -> PassResult:
    """
    Publish due rows until none is left or `seconds` have gone by.

    Transaction: two short ones per batch, around publishing, never across it.
    Order:       by id within one key; none across keys.
    Twice:       safe; a pass that dies after publishing leaves rows that are published again.
    """
    result = PassResult()
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not transport.is_ready():
            result.is_transport_down = True
            break
        claim = claim_rows(limit=batch_size, lease_seconds=lease_seconds, now=clock())
        if not claim.rows:
            break
        _publish(claim, transport, clock, publish_seconds, result)
        if result.is_transport_down:
            break
    return result


def claim_rows(*, limit: int, lease_seconds: float, now: datetime) -> Claim:
    """
    Claim up to `limit` due rows for this relay.

    Transaction: opens its own and commits before returning; no lock is held while publishing.
    Order:       by id; never a row whose key has an earlier pending row outside this claim.
    Units:       lease_seconds, database clock.
    Shape:       a Claim, possibly without rows.
    Twice:       safe; an expired lease is claimed again.
    """
    return repeat_on_conflict(lambda: _claim_once(limit=limit, lease_seconds=lease_seconds, now=now))


def _claim_once(*, limit: int, lease_seconds: float, now: datetime) -> Claim:
    claim = Claim(token=new_uuid())
    after_id = 0
    blocked_keys: set[str] = set()
    with transaction.atomic():
        for walked in range(_MAX_BLOCKED_BATCHES + 1):
            passed_over = blocked_keys if walked == _MAX_BLOCKED_BATCHES else set()
            candidates = _lock_due_rows(limit=limit, after_id=after_id, passed_over=passed_over, now=now)
            if not candidates:
                break
            takeable = _without_overtakers(candidates, now)
            if takeable:
                claim.rows.extend(takeable)
                break
            after_id = candidates[-1].id
            blocked_keys.update(row.message_key for row in candidates)
        ids = [row.id for row in claim.rows]
        if ids:
            lease_until = now + timedelta(seconds=lease_seconds)
            OutboxMessage.objects.filter(id__in=ids).update(
                claim_token=claim.token, lease_until=lease_until, updated_at=now
            )
    return claim


def _lock_due_rows(*, limit: int, after_id: int, passed_over: set[str], now: datetime) -> list[ClaimedRow]:
    due = OutboxMessage.objects.filter(
        Q(next_retry_at__isnull=True) | Q(next_retry_at__lte=now),
        Q(lease_until__isnull=True) | Q(lease_until__lte=now),
        status=Status.PENDING,
        id__gt=after_id,
    ).order_by("id")
    if passed_over:
        due = due.exclude(message_key__in=passed_over)
    rows = _unlocked(due).values("id", "event_id", "topic", "message_key", "payload")[:limit]
    return [ClaimedRow(**row) for row in rows]


def _unlocked(rows: QuerySet[OutboxMessage]) -> QuerySet[OutboxMessage]:
    """Lock the rows and pass those that another transaction holds. On SQLite a transaction is the only writer."""
    if connection.features.has_select_for_update_skip_locked:
        return rows.select_for_update(skip_locked=True)
    return rows


def _without_overtakers(candidates: Sequence[ClaimedRow], now: datetime) -> list[ClaimedRow]:
    """Drop the rows that stand behind a pending row of their key that is not a candidate; park them where it waits."""
    ids = [row.id for row in candidates]
    barriers: dict[str, int] = dict(
        OutboxMessage.objects.filter(
            status=Status.PENDING, message_key__in={row.message_key for row in candidates}, id__lt=ids[-1]
        )
        .exclude(id__in=ids)
        .order_by()
        .values_list("message_key")
        .annotate(first=Min("id"))
    )
    if not barriers:
        return list(candidates)
    blocked = [row for row in candidates if row.id > barriers.get(row.message_key, row.id)]
    _park(blocked, barriers, now)
    taken_away = {row.id for row in blocked}
    return [row for row in candidates if row.id not in taken_away]


def _park(blocked: Sequence[ClaimedRow], barriers: dict[str, int], now: datetime) -> None:
    """
    Give blocked rows the time of the retry they wait for.

    Otherwise the followers of one waiting row would fill every claim, and rows of other keys would starve behind them.
    Rows behind a row in flight are left alone: that is over in a moment.
    """
    waits = OutboxMessage.objects.filter(id__in=set(barriers.values()), next_retry_at__gt=now)
    for key, retry_at in waits.values_list("message_key", "next_retry_at"):
        followers = [row.id for row in blocked if row.message_key == key]
        OutboxMessage.objects.filter(id__in=followers).update(next_retry_at=retry_at)


def _publish(claim: Claim, transport: Transport, clock: Clock, publish_seconds: float, result: PassResult) -> None:
    messages, failures = _encode(claim.rows)
    failures |= transport.publish(messages, timeout_seconds=publish_seconds)
    now = clock()
    acknowledged = [message.outbox_id for message in messages if message.outbox_id not in failures]
    settled = settle_published(ids=acknowledged, token=claim.token, now=now)
    result.published += settled
    result.fenced += len(acknowledged) - settled
    refused = {pk: failure.reason for pk, failure in failures.items() if failure.is_permanent}
    result.dead += _settle_dead(refused, claim.token, now)
    unsent = {pk: failure.reason for pk, failure in failures.items() if not failure.is_permanent}
    if unsent:
        result.is_transport_down = True
        _release(unsent, claim.token, now)


def _encode(rows: Sequence[ClaimedRow]) -> tuple[list[OutgoingMessage], dict[int, PublishFailure]]:
    messages: list[OutgoingMessage] = []
    failures: dict[int, PublishFailure] = {}
    for row in rows:
        try:
            value = encode_wire(outbox_id=row.id, event_id=row.event_id, stored=row.payload)
        except EnvelopeUnreadable as error:
            failures[row.id] = PublishFailure(reason=f"unreadable payload: {error}", is_permanent=True)
        else:
            messages.append(OutgoingMessage(outbox_id=row.id, topic=row.topic, key=row.message_key, value=value))
    return messages, failures


def _held(ids: Sequence[int], token: str) -> QuerySet[OutboxMessage]:
    """
    Return the rows that still belong to this claim: the consumer or another relay may have moved on meanwhile.

    A constraint says that a row with a token is pending. Naming the status here would let MariaDB come through an index
    of it: index before row, where the consumer locks row before index, and one of them dies in a deadlock.
    """
    return OutboxMessage.objects.filter(id__in=ids, claim_token=token)


def settle_published(*, ids: Sequence[int], token: str, now: datetime) -> int:
    """
    Mark acknowledged rows published and return how many still were this claim's.

    Transaction: one UPDATE by primary keys, fenced by the token: a row that was consumed, rescheduled or claimed by
                 another relay meanwhile keeps its newer state.
    """
    if not ids:
        return 0
    return repeat_on_conflict(
        lambda: _held(ids, token).update(
            status=Status.PUBLISHED,
            published_at=now,
            claim_token=None,
            lease_until=None,
            next_retry_at=None,
            updated_at=now,
        )
    )


def _settle_dead(refused: dict[int, str], token: str, now: datetime) -> int:
    moved = 0
    for pk, reason in refused.items():
        bury = partial(
            _held([pk], token).update,
            status=Status.DEAD,
            last_error=reason,
            claim_token=None,
            lease_until=None,
            next_retry_at=None,
            updated_at=now,
        )
        moved += repeat_on_conflict(bury)
        logger.error("An event is dead: it can never be published", extra={"outbox_id": pk, "reason": reason})
    return moved


def _release(unsent: dict[int, str], token: str, now: datetime) -> None:
    """Give rows back after the broker's failure: due again shortly, no attempt counted."""
    repeat_on_conflict(
        lambda: _held(list(unsent), token).update(
            claim_token=None,
            lease_until=None,
            next_retry_at=now + timedelta(seconds=UNAVAILABLE_WAIT_SECONDS),
            last_error=f"not published: {next(iter(unsent.values()))}",
            updated_at=now,
        )
    )


def rescan_published(*, older_than: datetime, now: datetime, limit: int = 500) -> int:
    """
    Send rows round again that were published before `older_than` and never consumed; return how many.

    The broker may have lost the message, or the topic its retention. A duplicate does no harm: dispatch handles once.
    Transaction: its own; a row that a consumer has in hand at this moment is not stuck and is passed over.
    """
    stuck = OutboxMessage.objects.filter(status=Status.PUBLISHED, published_at__lt=older_than).order_by("id")
    ids = list(stuck.values_list("id", flat=True)[:limit])
    if not ids:
        return 0
    return repeat_on_conflict(lambda: _send_round_again(ids, older_than, now))


def _send_round_again(ids: Sequence[int], older_than: datetime, now: datetime) -> int:
    with transaction.atomic():
        # By primary key alone, for the reason of _held; so the status is looked at here.
        rows = _unlocked(OutboxMessage.objects.filter(id__in=ids)).values_list("id", "status", "published_at")
        stuck = [pk for pk, status, at in rows if status == Status.PUBLISHED and at is not None and at < older_than]
        return OutboxMessage.objects.filter(id__in=stuck).update(
            status=Status.PENDING, next_retry_at=None, updated_at=now
        )


def prune_consumed(*, older_than: datetime, limit: int = 1000) -> int:
    """
    Delete rows consumed before `older_than` by primary key and return how many.

    Looks at the `limit` oldest consumed rows only: no index is on `consumed_at`, so the search for one more old row
    would read every finished row there is.
    """
    oldest = OutboxMessage.objects.filter(status=Status.CONSUMED).order_by("id")
    rows = oldest.values_list("id", "consumed_at")[:limit]
    ids = [pk for pk, consumed_at in rows if consumed_at is not None and consumed_at < older_than]
    if not ids:
        return 0
    deleted, _ = OutboxMessage.objects.filter(id__in=ids).delete()
    return deleted
