"""Step 4: handle once. Locks the rows, runs the handlers and marks consumed, all in one transaction.

Where messages may come twice, late or out of order, this is where it stops: the row says what is still to be done.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from functools import partial
from typing import NamedTuple, TypeVar

from django.db import InterfaceError, OperationalError, connection, transaction
from django.db.models import BigIntegerField, Value
from django.db.models.functions import Coalesce

from outbox.attempts import FailedTry, record_failed_tries
from outbox.claim import hold_back
from outbox.database_errors import answers_after, is_away, is_lock_wait, is_lost, repeat_on_conflict
from outbox.envelope import Envelope, EnvelopeUnreadable, decode_wire
from outbox.locks import unlocked, wait_shortly
from outbox.metrics import observe_consumed
from outbox.models import FINAL, Attempt, OutboxMessage, Status, Worker
from outbox.predecessors import first_unfinished
from outbox.registry import HandlerMissing, Received, decode_event, handler_for
from outbox.retry import RETRY_POLICY, Failure, Record
from outbox.tally import TALLY
from outbox.workers import worker_name
from smartflow.events import EventUnreadable
from smartflow.kernel.clock import Clock
from smartflow.kernel.errors import DomainError, Unavailable
from smartflow.kernel.redact import describe_error

logger = logging.getLogger(__name__)

# A row that came before an earlier row of its key was handled goes round again after this; no attempt is counted.
DEFER_SECONDS = 1.0
# For how long a handler waits for a row that somebody else has locked, and its neighbours with it; the server's own
# default is 50. Larger: fewer events go round again for a lock that would have been free soon.
LOCK_WAIT_SECONDS = 5
# Tries that cost no attempt may be many: the first ones are kept.
KEPT_TRIES = 20

_T = TypeVar("_T")


class Outcome(StrEnum):
    """What became of one message. Every outcome lets its offset be stored: the row carries what is left to do."""

    CONSUMED = "consumed"
    DUPLICATE = "duplicate"  # the row is final already
    DEFERRED = "deferred"  # an earlier row of the key is unfinished, or somebody else has this one in hand
    BLOCKED = "blocked"  # an earlier row of the key is dead and holds it back, or is held itself
    RETRY = "retry"
    DEAD = "dead"
    UNKNOWN = "unknown"  # no such row: pruned, or written by another installation
    UNREADABLE = "unreadable"  # no envelope: nothing to reschedule, the row is rescanned


_COUNTED = {
    Outcome.CONSUMED: "consumed",
    Outcome.DUPLICATE: "duplicates",
    Outcome.RETRY: "retried",
    Outcome.DEAD: "dead",
}


@dataclass(frozen=True, slots=True)
class _Message:
    """A message that is an envelope."""

    outbox_id: int
    envelope: Envelope


class _Row(NamedTuple):
    """What a locked row says; an instance of the model would cost more than handling it."""

    id: int
    event_id: str
    status: str
    message_key: str
    created_at: datetime


def dispatch_messages(*, values: Sequence[bytes], clock: Clock) -> list[Outcome]:
    """
    Handle messages as they came from the transport and return what became of each, in the same order.

    Transaction: one for all of them, with `consumed`. When it fails it is rolled back and each half is tried by
                 itself, so that one bad message costs a few transactions more and its neighbours nothing. Where a
                 locked row was waited for, each message is: half of them would wait as long for it.
    Order:       per key, by id: a row whose key has an earlier unfinished row is sent round again instead, and held
                 when that row is dead and blocks its key.
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
    started = time.monotonic()
    try:
        return _count(_repeat(lambda: _handle_together(messages, clock())))
    except Exception as error:
        if is_away(error) and not answers_after(error):
            raise
        failure = error  # the name of an except clause is gone when the function below runs
    if len(messages) > 1:
        return [outcome for part in _parts(messages, failure) for outcome in _dispatch(part, clock)]
    failed = messages[0]
    assert failed is not None  # nothing is done for a message that cannot be read, so nothing fails
    seconds = time.monotonic() - started
    return _count([_repeat(lambda: _record_failure(failed.outbox_id, failure, seconds, clock()))])


def _parts(messages: list[_Message | None], failure: Exception) -> Iterator[list[_Message | None]]:
    size = 1 if is_lock_wait(failure) else (len(messages) + 1) // 2
    return (messages[start : start + size] for start in range(0, len(messages), size))


def _repeat(step: Callable[[], _T]) -> _T:
    """Run a transaction, again after a conflict, and once more after the loss of a connection that waited too long."""
    short = partial(wait_shortly, step, seconds=LOCK_WAIT_SECONDS)
    try:
        return repeat_on_conflict(short, is_wait_repeated=False)
    except (OperationalError, InterfaceError) as error:
        if not is_lost(error) or not answers_after(error):
            raise
    return repeat_on_conflict(short, is_wait_repeated=False)


def _count(outcomes: list[Outcome]) -> list[Outcome]:
    for outcome, amount in Counter(outcomes).items():
        if outcome in _COUNTED:
            TALLY.add(_COUNTED[outcome], amount)
    return outcomes


def _handle_together(messages: Sequence[_Message | None], now: datetime) -> list[Outcome]:
    started = time.monotonic()
    with transaction.atomic():
        rows = _lock_rows({message.outbox_id for message in messages if message})
        outcomes: list[Outcome] = []
        due: dict[int, Envelope] = {}
        for message in messages:
            outcomes.append(_judge(message, rows, due))
        early = _behind_unfinished([rows[pk] for pk in due])
        held = _step_back(early, rows, now) if early else set()
        ready = [pk for pk in sorted(due) if pk not in early]
        _run_handlers([due[pk] for pk in ready])
        _mark_consumed(ready, now)
    if ready:
        seconds = time.monotonic() - started
        written_at = [rows[pk].created_at for pk in ready]
        observe_consumed(written_at=written_at, now=now + timedelta(seconds=seconds), batch_seconds=seconds)
    for index, message in enumerate(messages):
        if message and message.outbox_id in early and outcomes[index] == Outcome.CONSUMED:
            outcomes[index] = Outcome.BLOCKED if message.outbox_id in held else Outcome.DEFERRED
    return outcomes


def _judge(message: _Message | None, rows: Mapping[int, _Row], due: dict[int, Envelope]) -> Outcome:
    """Say what the locked row makes of a message, and add it to `due` when there is something to do."""
    if message is None:
        return Outcome.UNREADABLE
    row = rows.get(message.outbox_id)
    if row is None or row.event_id != message.envelope.event_id:
        fields = {"outbox_id": message.outbox_id, "event_id": message.envelope.event_id}
        logger.warning("A message has no row", extra=fields)
        return Outcome.UNKNOWN
    if row.status in FINAL or row.id in due:
        return Outcome.DUPLICATE
    due[row.id] = message.envelope
    return Outcome.CONSUMED


def _lock_rows(ids: Collection[int], *, is_waiting: bool = True) -> dict[int, _Row]:
    # In the order of the primary key, so that two consumers with the same rows wait for each other and not in a circle.
    # A number that no row can have would be refused by the database's driver, and the whole batch with it.
    ids = [pk for pk in ids if 0 < pk <= BigIntegerField.MAX_BIGINT]
    if not ids:
        return {}
    rows = OutboxMessage.objects.filter(pk__in=ids).order_by("pk")
    if not is_waiting:
        rows = unlocked(rows)
    elif connection.features.has_select_for_update:
        rows = rows.select_for_update()
    return {row[0]: _Row(*row) for row in rows.values_list(*_Row._fields)}


def _behind_unfinished(due: Sequence[_Row]) -> dict[int, int]:
    """Return the due rows whose key has an earlier row, not among them, that must be over first; and that row's id."""
    if not due:
        return {}
    newest = {row.message_key: row.id for row in sorted(due)}
    barriers = first_unfinished(newest=newest, at_hand=[row.id for row in due])
    return {row.id: barriers[row.message_key] for row in due if row.id > barriers.get(row.message_key, row.id)}


def _step_back(early: Mapping[int, int], rows: Mapping[int, _Row], now: datetime) -> set[int]:
    """
    Give rows that came too early back to the relay and return those that are held.

    Behind a row that waits for its retry they wait as long; behind one that is dead or held itself they are held,
    because otherwise they would be published once a second for nothing. The rest is a matter of moments.
    """
    soon = now + timedelta(seconds=DEFER_SECONDS)
    _send_round_again(early, soon, now)
    heads = OutboxMessage.objects.filter(pk__in=set(early.values()))
    held: set[int] = set()
    blocked: dict[str, int] = {}
    for head in heads.only("status", "ready_shard", "next_retry_at", "message_key"):
        ids = [pk for pk, head_id in early.items() if head_id == head.pk]
        is_held = head.status == Status.PENDING and head.ready_shard is None
        if head.status == Status.PENDING and head.next_retry_at is not None:
            _send_round_again(ids, head.next_retry_at, now)
        elif head.status == Status.DEAD or is_held:
            blocked[head.message_key] = head.pk
            held.update(ids)
    hold_back(ids=held, heads=blocked, now=now)
    return held


def _run_handlers(envelopes: Sequence[Envelope]) -> None:
    """Apply the events, those of one key in the given order; those of one type go to its handler together."""
    for event_type, group in _group(envelopes):
        handler = handler_for(event_type)
        try:
            handler([_decode(envelope) for envelope in group])
        except SystemExit as error:
            raise RuntimeError(f"the handler asked the process to end: {error}") from error


def _group(envelopes: Sequence[Envelope]) -> list[tuple[str, list[Envelope]]]:
    """
    Put events of one type together, past those of other keys.

    Without it a turn's message and the state it leaves would take turns, and each would be a batch by itself.
    """
    groups: list[tuple[str, list[Envelope]]] = []
    latest: dict[str, int] = {}  # of each key, the group of its event before
    for envelope in envelopes:
        first = latest.get(envelope.aggregate_id, 0)
        same = (at for at in range(first, len(groups)) if groups[at][0] == envelope.event_type)
        if (at := next(same, None)) is None:
            at = len(groups)
            groups.append((envelope.event_type, []))
        groups[at][1].append(envelope)
        latest[envelope.aggregate_id] = at
    return groups


def _decode(envelope: Envelope) -> Received:
    event = decode_event(event_type=envelope.event_type, version=envelope.event_version, payload=envelope.payload)
    return Received(event=event, event_id=envelope.event_id)


def _send_round_again(ids: Collection[int], at: datetime, now: datetime) -> None:
    # The caller has locked the rows and none is final. Naming the status here too would let MariaDB come through an
    # index of it: index before row, where everybody else locks row before index.
    OutboxMessage.objects.filter(pk__in=ids).update(
        status=Status.PENDING, ready_shard=None, next_retry_at=at, claim_token=None, lease_until=None, updated_at=now
    )


def _mark_consumed(ids: Collection[int], now: datetime) -> None:
    # The token goes too: the relay that published these rows may not have settled them yet, and now never will.
    # By primary key alone, as above.
    if ids:
        OutboxMessage.objects.filter(pk__in=ids).update(
            status=Status.CONSUMED,
            published_at=Coalesce("published_at", Value(now)),
            consumed_at=now,
            consumed_by=_name(),
            ready_shard=None,
            claim_token=None,
            lease_until=None,
            next_retry_at=None,
            updated_at=now,
        )


def _record_failure(outbox_id: int, error: Exception, seconds: float, now: datetime) -> Outcome:
    """Reschedule the row by the retry policy, or park it as a dead letter when no retry can help or none is left."""
    reason = describe_error(error)
    with transaction.atomic():
        row = _lock_rows([outbox_id], is_waiting=not is_lock_wait(error)).get(outbox_id)
        if row is None and is_lock_wait(error):
            return Outcome.DEFERRED  # in somebody else's hand; should they let it fall, the row is rescanned
        if row is None or row.status in FINAL:
            return Outcome.DUPLICATE
        counts = OutboxMessage.objects.filter(pk=outbox_id).values_list("retry_count", "max_retry", "biz_type")
        attempts, max_attempts, biz_type = counts[0]
        tries = Attempt.objects.filter(message_id=outbox_id).count()
        record = Record(attempts=attempts, max_attempts=max_attempts, tries=tries, age=now - row.created_at)
        verdict = RETRY_POLICY.judge(_kind_of(error), record)
        wait = verdict.wait_seconds
        OutboxMessage.objects.filter(pk=outbox_id).update(
            status=Status.DEAD if wait is None else Status.PENDING,
            retry_count=verdict.attempts,
            next_retry_at=None if wait is None else now + timedelta(seconds=wait),
            last_error=reason,
            ready_shard=None,
            claim_token=None,
            lease_until=None,
            updated_at=now,
        )
        if verdict.attempts > attempts or tries < KEPT_TRIES:
            step, number = Attempt.Step.HANDLE, verdict.number
            failed = FailedTry(message_id=outbox_id, step=step, number=number, seconds=seconds, error=reason)
            record_failed_tries(tries=[failed], by=_name(), now=now)
    fields = {"outbox_id": outbox_id, "event_type": biz_type, "attempt": verdict.number, "error": reason}
    if wait is None:
        logger.error("An event is dead", extra=fields)
        return Outcome.DEAD
    logger.info("An event will be tried again", extra=fields)
    return Outcome.RETRY


def _name() -> str:
    """Return what rows say of who handled them: the name of this process's row among the workers."""
    return worker_name(Worker.Kind.CONSUMER)


def _kind_of(error: Exception) -> Failure:
    if isinstance(error, Unavailable) or is_away(error):
        return Failure.PASSING
    return Failure.PERMANENT if isinstance(error, DomainError | HandlerMissing | EventUnreadable) else Failure.OWN
