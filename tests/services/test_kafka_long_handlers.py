"""A handler that works longer than a member may be silent, on a real broker: it keeps its partitions and acts once."""

import threading
import time
from collections import Counter
from collections.abc import Iterable
from functools import partial

import pytest
from django.db import connection

from outbox import registry
from outbox.consumer import EventConsumer, SecondThread
from outbox.database_clock import database_now
from outbox.dispatch import Outcome
from outbox.models import OutboxMessage, Status
from outbox.registry import all_topics
from outbox.transports import kafka as kafka_transport
from outbox.transports.kafka import KafkaConsumer, _look_from_outside
from outbox.transports.kafka_settings import consumer_settings
from outbox.transports.set_aside import SetAside
from tests.outbox_rows import EVENT_TYPE, append
from tests.services.test_kafka_consumers import message_of
from tests.stack import wait_until

pytestmark = [pytest.mark.services, pytest.mark.django_db(transaction=True)]
SILENT_SECONDS = 2.0
KEYS = [f"key{number}" for number in range(12)]


@pytest.fixture
def impatient(monkeypatch):
    """Throw members out that do not poll for two seconds; in service it is five minutes."""
    if connection.vendor != "mysql":
        pytest.skip("two members need a database server")
    most = int(SILENT_SECONDS * 1000)
    quick = {"max.poll.interval.ms": most, "session.timeout.ms": most, "heartbeat.interval.ms": 500}
    monkeypatch.setattr(kafka_transport, "consumer_settings", lambda: consumer_settings() | quick)


class Member:
    """A consumer in a thread, which counts what became of its messages and notes which partitions it lost."""

    def __init__(self) -> None:
        self.outcomes: Counter[Outcome] = Counter()
        self.source = KafkaConsumer()
        self._stop = threading.Event()
        self._hands = SecondThread(every_seconds=SILENT_SECONDS / 8)
        self._consumer = EventConsumer(source=self.source, clock=database_now, wait=self._stop.wait, hands=self._hands)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    @property
    def partitions(self) -> set[int]:
        return {one.partition for one in self.source.positions()}

    def _run(self) -> None:
        while not self._stop.is_set():
            self.outcomes += self._consumer.run_once(timeout_seconds=0.2)
        self._hands.close()
        self.source.close()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(20)
        assert not self._thread.is_alive()


@pytest.fixture
def long_handler(monkeypatch):
    """Handle the message `slow` until `release` is set, and every other one at once."""

    def handle(event, *, event_id):
        handle.messages.append(event.message)
        if event.message == "slow of k":
            handle.begun.set()
            assert handle.release.wait(30)

    handle.messages, handle.begun, handle.release = [], threading.Event(), threading.Event()
    monkeypatch.setitem(registry._handlers, EVENT_TYPE, handle)
    yield handle
    handle.release.set()


@pytest.fixture
def members(impatient, transport, long_handler):
    made = [Member(), Member()]
    yield made
    long_handler.release.set()
    for member in made:
        member.close()


def send(transport, keys: list[str], message: str) -> dict[int, int]:
    """Write and publish one event for each key; return the partition of each row."""
    ids = [append(key, f"{message} of {key}") for key in keys]
    OutboxMessage.objects.filter(id__in=ids).update(
        status=Status.PUBLISHED, ready_shard=None, published_at=database_now()
    )
    messages = [message_of(row) for row in OutboxMessage.objects.filter(id__in=ids)]
    result = transport.publish(messages, timeout_seconds=10)
    assert not result.failures
    return {pk: partition for pk, (partition, _) in result.positions.items()}


def are_consumed(ids: Iterable[int]) -> bool:
    return not OutboxMessage.objects.filter(id__in=list(ids)).exclude(status=Status.CONSUMED).exists()


@pytest.mark.parametrize("most_bytes", [10**6, -1])
def test_a_handler_longer_than_a_member_may_be_silent_keeps_its_partitions_and_acts_once(
    members, transport, long_handler, most_bytes
):
    """Also when no more of what arrives meanwhile can be set aside; the others' messages flow."""
    for member in members:
        member.source._aside = SetAside(most_bytes=most_bytes)
    sent = send(transport, KEYS, "first")
    wait_until(lambda: are_consumed(sent), 30, "a first round")
    wait_until(lambda: sorted(len(one.partitions) for one in members) == [1, 2], 30, "a share for each")
    shares = [member.partitions for member in members]
    slow = send(transport, ["k"], "slow")
    assert long_handler.begun.wait(10)
    begun = time.monotonic()
    (busy,) = [share for share in shares if share & set(slow.values())]

    while time.monotonic() - begun < 2.5 * SILENT_SECONDS:
        more = send(transport, KEYS, "more")
        flowing = {pk for pk, partition in more.items() if partition not in busy}
        wait_until(partial(are_consumed, flowing), 2, "what is not behind the long handler")
        sent |= more
    assert flowing
    assert [member.partitions for member in members] == shares
    long_handler.release.set()
    sent |= slow
    wait_until(lambda: are_consumed(sent), 10, "every message")

    wait_until(is_all_committed, 5, "every offset")
    assert [member.partitions for member in members] == shares
    for member in members:
        member.close()
    assert long_handler.messages.count("slow of k") == 1
    assert members[0].outcomes + members[1].outcomes == {Outcome.CONSUMED: len(sent)}


def is_all_committed() -> bool:
    """Only a member that still owns its partitions can commit what it has done."""
    seen = _look_from_outside(all_topics()) or {}
    return bool(seen) and all(offsets.committed in (offsets.end, -1001) for offsets in seen.values())
