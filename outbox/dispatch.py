"""Step 4: handle once. Locks the rows, runs the handlers and marks consumed, all in one transaction.

Where messages may come twice, late or out of order, this is where it stops: the row says what is still to be done.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import groupby

from django.db import connection, transaction
from django.db.models import BigIntegerField, Min, Value
from django.db.models.functions import Coalesce

from outbox.database_errors import is_away, repeat_on_conflict
from outbox.envelope import Envelope, EnvelopeUnreadable, decode_wire
from outbox.models import FINAL, OutboxMessage, Status
from outbox.registry import HandlerMissing, Received, decode_event, handler_for
from outbox.retry import RETRY_POLICY
from smartflow.events import EventUnreadable
from smartflow.kernel.clock import Clock
from smartflow.kernel.errors import DomainError, Unavailable
from smartflow.kernel.redact import describe_error

logger = logging.getLogger(__name__)

# A row that came before an earlier row of its key was handled goes round again after this; no attempt is counted.
DEFER_SECONDS = 1.0


class Outcome(StrEnum):
    """What became of one message. Every outcome lets its offset be stored: the row carries what is left to do."""

    CONSUMED = "consumed"
    DUPLICATE = "duplicate"  # the row is final already
    DEFERRED = "deferred"  # an earlier row of the key is unfinished
    RETRY = "retry"
    DEAD = "dead"
    UNKNOWN = "unknown"  # no such row: pruned, or written by another installation
    UNREADABLE = "unreadable"  # no envelope: nothing to reschedule, the row is rescanned


@dataclass(frozen=True, slots=True)
class _Message:
    """A message that is an envelope."""

    outbox_id: int
    envelope: Envelope


def dispatch_messages(*, values: Sequence[bytes], clock: Clock) -> list[Outcome]:
    """
    Handle messages as they came from the transport and return what became of each, in the same order.

    Transaction: one for all of them, with `consumed`. When it fails it is rolled back and each half is tried by
                 itself, so that one bad message costs a few transactions more and its neighbours nothing.
    Order:       per key, by id: a row whose key has an earlier unfinished row is sent round again instead.
    Twice:       a final row is left alone, also within one call.
    Raises:      OperationalError, InterfaceError when the database is away: the caller must not acknowledge.
    """
    return _dispatch([_read(value) for value in values], clock)


def dispatch_message(*, value: bytes, clock: Clock) -> Outcome:
    """Handle one message; see dispatch_messages."""
    return dispatch_messages(values=[value], clock=clock)[0]


def _read(value: bytes) -> _Message | None:
    try:
        return _Message(*decode_wire(value))
    except EnvelopeUnreadable as error:
        logger.error("A message is no envelope", extra={"reason": str(error), "bytes": len(value)})
        return None


def _dispatch(messages: list[_Message | None], clock: Clock) -> list[Outcome]:
    try:
        return repeat_on_conflict(lambda: _handle_together(messages, clock()))
    except Exception as error:
        if is_away(error):
            raise
        failure = error  # the name of an except clause is gone when the function below runs
    if len(messages) > 1:
        middle = len(messages) // 2
        return _dispatch(messages[:middle], clock) + _dispatch(messages[middle:], clock)
    failed = messages[0]
    assert failed is not None  # nothing is done for a message that cannot be read, so nothing fails
    return [repeat_on_conflict(lambda: _record_failure(failed.outbox_id, failure, clock()))]


def _handle_together(messages: Sequence[_Message | None], now: datetime) -> list[Outcome]:
    with transaction.atomic():
        rows = _lock_rows({message.outbox_id for message in messages if message})
        outcomes: list[Outcome] = []
        due: dict[int, Envelope] = {}
        for message in messages:
            outcomes.append(_judge(message, rows, due))
        early = _behind_unfinished(due, rows)
        _send_round_again(early, now)
        _run_handlers([due[pk] for pk in sorted(due) if pk not in early])
        _mark_consumed([pk for pk in due if pk not in early], now)
    for index, message in enumerate(messages):
        if message and message.outbox_id in early and outcomes[index] == Outcome.CONSUMED:
            outcomes[index] = Outcome.DEFERRED
    return outcomes


def _judge(message: _Message | None, rows: Mapping[int, OutboxMessage], due: dict[int, Envelope]) -> Outcome:
    """Say what the locked row makes of a message, and add it to `due` when there is something to do."""
    if message is None:
        return Outcome.UNREADABLE
    row = rows.get(message.outbox_id)
    if row is None or row.event_id != message.envelope.event_id:
        fields = {"outbox_id": message.outbox_id, "event_id": message.envelope.event_id}
        logger.warning("A message has no row", extra=fields)
        return Outcome.UNKNOWN
    if row.status in FINAL or row.pk in due:
        return Outcome.DUPLICATE
    due[row.pk] = message.envelope
    return Outcome.CONSUMED


def _lock_rows(ids: Collection[int]) -> dict[int, OutboxMessage]:
    # In the order of the primary key, so that two consumers with the same rows wait for each other and not in a circle.
    # A number that no row can have would be refused by the database's driver, and the whole batch with it.
    ids = [pk for pk in ids if 0 < pk <= BigIntegerField.MAX_BIGINT]
    rows = OutboxMessage.objects.filter(pk__in=ids).defer("payload").order_by("pk")
    if connection.features.has_select_for_update:
        rows = rows.select_for_update()
    return {row.pk: row for row in rows} if ids else {}


def _behind_unfinished(due: Collection[int], rows: Mapping[int, OutboxMessage]) -> set[int]:
    """Return those of the due rows whose key has an earlier unfinished row that is not among them."""
    if not due:
        return set()
    barriers: dict[str, int] = dict(
        OutboxMessage.objects.filter(
            message_key__in={rows[pk].message_key for pk in due},
            status__in=(Status.PENDING, Status.PUBLISHED),
            id__lt=max(due),
        )
        .exclude(id__in=due)
        .order_by()
        .values_list("message_key")
        .annotate(first=Min("id"))
    )
    return {pk for pk in due if pk > barriers.get(rows[pk].message_key, pk)}


def _run_handlers(envelopes: Sequence[Envelope]) -> None:
    """Apply the events in the given order; neighbours of one type go to its handler together."""
    for event_type, run in groupby(envelopes, key=lambda envelope: envelope.event_type):
        handler = handler_for(event_type)
        handler([_decode(envelope) for envelope in run])


def _decode(envelope: Envelope) -> Received:
    event = decode_event(event_type=envelope.event_type, version=envelope.event_version, payload=envelope.payload)
    return Received(event=event, event_id=envelope.event_id)


def _send_round_again(ids: Collection[int], now: datetime) -> None:
    if ids:
        OutboxMessage.objects.filter(pk__in=ids).exclude(status__in=FINAL).update(
            status=Status.PENDING,
            ready_shard=None,
            next_retry_at=now + timedelta(seconds=DEFER_SECONDS),
            claim_token=None,
            lease_until=None,
            updated_at=now,
        )


def _mark_consumed(ids: Collection[int], now: datetime) -> None:
    # The token goes too: the relay that published these rows may not have settled them yet, and now never will.
    if ids:
        OutboxMessage.objects.filter(pk__in=ids).exclude(status__in=FINAL).update(
            status=Status.CONSUMED,
            published_at=Coalesce("published_at", Value(now)),
            consumed_at=now,
            ready_shard=None,
            claim_token=None,
            lease_until=None,
            next_retry_at=None,
            updated_at=now,
        )


def _record_failure(outbox_id: int, error: Exception, now: datetime) -> Outcome:
    """Reschedule the row by the retry policy, or park it as a dead letter when no retry can help or none is left."""
    reason = describe_error(error)
    with transaction.atomic():
        row = _lock_rows([outbox_id]).get(outbox_id)
        if row is None or row.status in FINAL:
            return Outcome.DUPLICATE
        row.retry_count += 1
        is_dead = _is_permanent(error) or row.retry_count >= row.max_retry
        row.status = Status.DEAD if is_dead else Status.PENDING
        wait = timedelta(seconds=RETRY_POLICY.seconds(attempt=row.retry_count))
        row.next_retry_at = None if is_dead else now + wait
        row.last_error, row.updated_at = reason, now
        row.ready_shard = row.claim_token = row.lease_until = None
        row.save(
            update_fields=[
                "retry_count",
                "status",
                "ready_shard",
                "next_retry_at",
                "last_error",
                "claim_token",
                "lease_until",
                "updated_at",
            ]
        )
    fields = {"outbox_id": outbox_id, "event_type": row.biz_type, "attempt": row.retry_count, "error": reason}
    if is_dead:
        logger.error("An event is dead", extra=fields)
        return Outcome.DEAD
    logger.info("An event will be tried again", extra=fields)
    return Outcome.RETRY


def _is_permanent(error: Exception) -> bool:
    if isinstance(error, DomainError):
        return not isinstance(error, Unavailable)
    return isinstance(error, HandlerMissing | EventUnreadable)
