"""outbox/consumer.py: acknowledge only what the database holds, and outlast a database or a transport that is away."""

import functools
import logging
import threading

import pytest
from django.db import InterfaceError, OperationalError, connection, connections

from outbox import consumer as consumer_module
from outbox import registry
from outbox.consumer import EventConsumer, SecondThread, Stopped
from outbox.dispatch import Outcome
from outbox.models import LocalMessage, Status
from outbox.testing import drain
from outbox.transports import TransportUnavailable
from outbox.transports.local import LocalTransport
from tests.outbox_rows import EVENT_TYPE, NOW, append, make_consumer, row_of, run_pass

pytestmark = pytest.mark.django_db
AWAY = InterfaceError("connection already closed")


class RecordingSource:
    """The local transport's consumer, which remembers what happened to it, and fails as the test says."""

    def __init__(self):
        self.inner = LocalTransport().open_consumer()
        self.calls: list[str] = []
        self.errors: dict[str, list[Exception]] = {"poll": [], "acknowledge": []}

    def _note(self, call):
        self.calls.append(call)
        if self.errors[call]:
            raise self.errors[call].pop()

    def poll(self, *, max_messages, timeout_seconds):
        self._note("poll")
        return self.inner.poll(max_messages=max_messages, timeout_seconds=timeout_seconds)

    def acknowledge(self, deliveries):
        self._note("acknowledge")
        self.inner.acknowledge(deliveries)

    def positions(self):
        return self.inner.positions()

    def keep_alive(self):
        self.calls.append("keep alive")

    def close(self):
        self.calls.append("close")


@pytest.fixture
def source():
    return RecordingSource()


@pytest.fixture(autouse=True)
def keep_connection(monkeypatch):
    """The transaction around a test would be lost with the connection."""
    monkeypatch.setattr(consumer_module.connection, "close", lambda: None)


@pytest.fixture
def published(clock):
    def make(*messages: str) -> list[int]:
        ids = [append("k", message) for message in messages]
        run_pass(LocalTransport(), clock)
        return ids

    return make


def test_run_once_handles_in_order_and_then_acknowledges(published, handler, clock):
    published("one", "two", "three")

    outcomes = make_consumer(clock).run_once(timeout_seconds=0)

    assert outcomes == {Outcome.CONSUMED: 3}
    assert handler.messages == ["one", "two", "three"]
    assert not LocalMessage.objects.exists()


def test_run_once_acknowledges_a_failed_message_because_its_row_carries_the_retry(published, handler, clock):
    (pk,) = published("one")
    handler.error = RuntimeError("not yet")

    assert make_consumer(clock).run_once(timeout_seconds=0) == {Outcome.RETRY: 1}
    assert not LocalMessage.objects.exists()
    assert row_of(pk).status == Status.PENDING


def test_run_once_goes_on_behind_a_message_that_is_no_envelope(published, handler, clock):
    LocalMessage.objects.create(outbox_id=0, topic="t", message_key="k", value="{")
    published("one")

    outcomes = make_consumer(clock).run_once(timeout_seconds=0)

    assert outcomes == {Outcome.UNREADABLE: 1, Outcome.CONSUMED: 1}


def test_run_once_tries_the_same_message_until_the_database_answers(published, handler, clock, source):
    (pk,) = published("one")
    waits: list[float] = []

    def wait(seconds):
        waits.append(seconds)
        if len(waits) == 6:
            handler.error = None
        return False

    handler.error = AWAY
    outcomes = EventConsumer(source=source, clock=clock, wait=wait).run_once(timeout_seconds=0)

    assert outcomes == {Outcome.CONSUMED: 1}
    assert waits == [0.2, 0.4, 0.8, 1.6, 3.0, 3.0]
    assert row_of(pk).retry_count == 0
    assert source.calls == ["poll", "acknowledge"]


def test_run_once_leaves_the_message_unacknowledged_when_asked_to_stop_meanwhile(published, handler, clock, source):
    published("one")
    handler.error = AWAY
    consumer = EventConsumer(source=source, clock=clock, wait=lambda _seconds: True)

    with pytest.raises(Stopped):
        consumer.run_once(timeout_seconds=0)
    assert source.calls == ["poll"]
    assert LocalMessage.objects.exists()


def test_run_once_acknowledges_again_when_the_database_was_away(published, handler, clock, source):
    published("one")
    source.errors["acknowledge"] = [OperationalError(2006, "gone away")]

    EventConsumer(source=source, clock=clock, wait=lambda _seconds: False).run_once(timeout_seconds=0)

    assert source.calls == ["poll", "acknowledge", "acknowledge"]
    assert not LocalMessage.objects.exists()


def test_run_once_handles_nothing_twice_when_it_died_before_the_acknowledgement(published, handler, clock):
    published("one", "two")
    dying = RecordingSource()
    dying.errors["acknowledge"] = [RuntimeError("killed")]
    with pytest.raises(RuntimeError, match="killed"):
        EventConsumer(source=dying, clock=clock, wait=lambda _seconds: False).run_once(timeout_seconds=0)

    assert make_consumer(clock).run_once(timeout_seconds=0) == {Outcome.DUPLICATE: 2}
    assert handler.messages == ["one", "two"]


@pytest.mark.parametrize("error", [TransportUnavailable("_TRANSPORT"), OperationalError(2006, "gone"), AWAY])
def test_run_once_waits_and_says_so_once_when_the_transport_is_away(clock, source, caplog, error):
    source.errors["poll"] = [error] * 3
    consumer = EventConsumer(source=source, clock=clock, wait=lambda _seconds: False)

    with caplog.at_level(logging.INFO, logger="outbox.consumer"):
        for _ in range(5):
            assert consumer.run_once(timeout_seconds=0) == {}

    assert [record.message for record in caplog.records] == [
        "The transport does not answer",
        "The transport answers again",
    ]


def test_run_leaves_the_group_when_asked_to_stop(clock, source):
    EventConsumer(source=source, clock=clock, wait=lambda _seconds: True).run()

    assert source.calls == ["close"]


def test_run_leaves_the_group_when_stopped_with_a_message_in_hand(published, handler, clock, source):
    published("one")
    handler.error = AWAY
    answers = iter([False, True])
    EventConsumer(source=source, clock=clock, wait=lambda _seconds: next(answers)).run()

    assert source.calls == ["poll", "close"]


def test_run_stays_in_the_group_while_a_handler_works_and_acknowledges_afterwards(published, handler, clock, source):
    published("one")

    class LongWork:
        """Handles here, so that the test's transaction is seen, and lets three seconds pass meanwhile."""

        def work(self, step, *, meanwhile):
            for _ in range(3):
                meanwhile()
            assert source.calls == ["poll", *["keep alive"] * 3]
            return step()

        def close(self):
            source.calls.append("hands closed")

    answers = iter([False, True])
    pulse = RecordingPulse()
    consumer = EventConsumer(
        source=source, clock=clock, wait=lambda _seconds: next(answers), hands=LongWork(), pulse=pulse
    )
    consumer.run()

    assert source.calls == ["poll", *["keep alive"] * 3, "acknowledge", "hands closed", "close"]
    assert pulse.said == ["idle", "busy", "busy", "busy", "consumed 1", "stop"]


class RecordingPulse:
    """A heartbeat that remembers."""

    def __init__(self):
        self.said: list[str] = []

    def beat_if_due(self, *, positions, busy_seconds):
        self.said.append("busy" if busy_seconds else "idle")

    def note_consumed(self, amount):
        self.said.append(f"consumed {amount}")

    def stop(self):
        self.said.append("stop")


def test_second_thread_works_while_the_first_goes_on():
    hands = SecondThread(every_seconds=0.001)
    enough, calls = threading.Event(), []

    def meanwhile():
        calls.append(threading.current_thread())
        if len(calls) == 3:
            enough.set()

    def step():
        assert enough.wait(10)
        return threading.current_thread()

    thread = hands.work(step, meanwhile=meanwhile)
    hands.close()

    assert thread.name.startswith("outbox-handlers")
    assert set(calls[:3]) == {threading.current_thread()}
    assert not thread.is_alive()


def test_second_thread_closes_the_connection_that_its_steps_used():
    hands = SecondThread()
    own = hands.work(open_connection, meanwhile=lambda: None)
    assert own.connection is not None

    hands.close()

    assert own.connection is None


def open_connection():
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    return connections["default"]


def test_second_thread_raises_what_the_step_raises():
    hands = SecondThread()

    with pytest.raises(TimeoutError, match="of the handler's own"):
        hands.work(functools.partial(fail, TimeoutError("of the handler's own")), meanwhile=lambda: None)
    hands.close()


def fail(error):
    raise error


def test_drain_brings_every_event_to_its_handler_in_order(handler):
    for number in range(120):
        append(f"key{number % 3}", str(number))

    assert drain() == {Outcome.CONSUMED: 120}
    for rest in range(3):
        own = [int(text) for text in handler.messages if int(text) % 3 == rest]
        assert own == sorted(own)


def test_a_failing_head_holds_back_its_key_and_goes_first_when_it_recovers(handler, clock, monkeypatch):
    head, follower, other = append("a", "head"), append("a", "follower"), append("b", "other")

    def fail_head_at_first(event, *, event_id):
        if event.message == "head" and clock.now == NOW:
            raise RuntimeError("not yet")
        handler(event, event_id=event_id)

    monkeypatch.setitem(registry._handlers, EVENT_TYPE, fail_head_at_first)
    drain(now=clock.now)
    assert handler.messages == ["other"]
    assert [row_of(pk).status for pk in (head, follower, other)] == ["pending", "pending", "consumed"]

    clock.advance(10)
    drain(now=clock.now)

    assert handler.messages == ["other", "head", "follower"]
