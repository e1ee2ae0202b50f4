"""Makes and reads outbox rows for tests, with a clock and a transport that do what the test says."""

import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from django.db import transaction

from outbox import relay
from outbox.append import append_event
from outbox.breaker import Breaker, TopicBreakers
from outbox.consumer import EventConsumer
from outbox.envelope import encode_wire
from outbox.models import OutboxMessage, Status
from outbox.shards import shard_of
from outbox.testing import RecordingTransport
from outbox.transports import OutgoingMessage, PublishResult
from outbox.transports.local import LocalTransport
from smartflow.events import ChatHistoryPersistRequested

NOW = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)
EVENT_TYPE = ChatHistoryPersistRequested.event_type


class SteppedClock:
    """A clock that moves only when it is told to."""

    def __init__(self, now: datetime = NOW) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


class SteppedSeconds:
    """A monotonic clock that moves only when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class SharedLog(RecordingTransport):
    """One broker for several relays: appends what is published under a lock, in the order of arrival."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()

    def publish(self, messages: Sequence[OutgoingMessage], *, timeout_seconds: float) -> PublishResult:
        with self.lock:
            return super().publish(messages, timeout_seconds=timeout_seconds)


def make_event(message: str = "hello") -> ChatHistoryPersistRequested:
    """Return an event whose payload holds the message."""
    return ChatHistoryPersistRequested(
        user_id=1,
        conversation_id="c1",
        run_id="r1",
        role="user",
        message=message,
        tokens_consumed=0,
        occurred_at="2026-03-01T08:00:00Z",
        calls=[],
    )


def append(key: str = "k", message: str = "hello", *, event_id: str | None = None, now: datetime = NOW) -> int:
    """Append one event in a transaction of its own and return its row's id."""
    with transaction.atomic():
        return append_event(event=make_event(message), key=key, now=now, event_id=event_id)


def row_of(outbox_id: int) -> OutboxMessage:
    return OutboxMessage.objects.get(pk=outbox_id)


def new_row(*, message_key: str, status: str = Status.PENDING, **fields: object) -> OutboxMessage:
    """
    Return an unsaved row in a state of the test's choice; pending rows are ready unless they wait for a retry.

    A discarded row is what discarding makes of it: see OutboxMessage.next_retry_at.
    """
    fields.setdefault("next_retry_at", fields.get("discarded_at"))
    shard = shard_of(message_key)
    is_ready = status == Status.PENDING and fields.get("next_retry_at") is None
    return OutboxMessage(
        message_key=message_key, status=status, shard=shard, ready_shard=shard if is_ready else None, **fields
    )


def change(outbox_id: int, **fields: object) -> None:
    """Write fields past the product's code; a row that is not pending, or waits for a retry, is not ready either."""
    if fields.get("status", Status.PENDING) != Status.PENDING or fields.get("next_retry_at") is not None:
        fields = {"ready_shard": None, "claim_token": None, "lease_until": None, **fields}
    if "discarded_at" in fields:
        fields.setdefault("next_retry_at", fields["discarded_at"])
    OutboxMessage.objects.filter(pk=outbox_id).update(**fields)


def wire(outbox_id: int) -> bytes:
    """Return the message that publishing the row sends."""
    row = row_of(outbox_id)
    return encode_wire(outbox_id=row.pk, event_id=row.event_id, stored=row.payload)


def claim(*, now: datetime = NOW, limit: int = 50, lease_seconds: float = 10) -> relay.Claim:
    return relay.claim_rows(limit=limit, lease_seconds=lease_seconds, now=now)


def run_pass(transport: object, clock: Callable[[], datetime], *, batch_size: int = 50) -> relay.PassResult:
    return relay.run_pass(
        transport=transport, clock=clock, batch_size=batch_size, lease_seconds=10, publish_seconds=5, seconds=30
    )


def make_relay(transport: object, clock: Callable[[], datetime], monotonic: Callable[[], float]) -> relay.Relay:
    """Return a relay whose breakers go by `monotonic`."""
    bounds = relay.Bounds(batch_size=50, lease_seconds=10, publish_seconds=5)
    memory = relay.Memory(breaker=Breaker(monotonic=monotonic), topics=TopicBreakers(monotonic=monotonic))
    return relay.Relay(transport=transport, clock=clock, bounds=bounds, memory=memory)


def make_consumer(clock: Callable[[], datetime], *, transport: object | None = None) -> EventConsumer:
    source = (transport or LocalTransport()).open_consumer()
    return EventConsumer(source=source, clock=clock, wait=lambda _seconds: False)
