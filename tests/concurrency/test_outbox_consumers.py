"""Consumers at the same moment, each with a connection of its own: one message, one effect; one key, one order."""

import threading
from datetime import timedelta

import pytest
from django.db import connection

from outbox import registry, relay
from outbox.consumer import EventConsumer, SecondThread
from outbox.dispatch import Outcome, dispatch_message
from outbox.models import LocalMessage, OutboxMessage, Status
from outbox.rescan import send_round_again
from outbox.transports import PublishedRow
from outbox.transports.local import LocalConsumer, LocalTransport
from tests.outbox_rows import EVENT_TYPE, NOW, append, change, claim, row_of, wire
from tests.racing import run_at_once

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def effects(monkeypatch):
    """Handle events by writing a row, so that what is counted is what was committed."""

    def write(event, *, event_id):
        LocalMessage.objects.create(outbox_id=0, topic="effect", message_key=event_id, value=event.message)

    monkeypatch.setitem(registry._handlers, EVENT_TYPE, write)
    return LocalMessage.objects.filter(topic="effect").order_by("pk")


def published(key: str = "k", message: str = "hello") -> int:
    pk = append(key, message)
    change(pk, status=Status.PUBLISHED, published_at=NOW)
    return pk


def handle(pk: int) -> Outcome:
    return dispatch_message(value=wire(pk), clock=lambda: NOW)


def rescan(ids: list[int]) -> int:
    """Send rows round again as if the broker had lost their messages."""
    rows = [PublishedRow(outbox_id=pk, topic="t", partition=None, offset=None) for pk in ids]
    return send_round_again(rows, published_before=NOW.replace(year=2027), now=NOW)


@pytest.mark.parametrize("attempt", range(5))
def test_dispatch_message_runs_the_handler_once_when_consumers_have_the_same_message(effects, attempt):
    pk = published()

    outcomes = run_at_once(*[lambda: handle(pk)] * 4)

    assert sorted(outcomes) == [Outcome.CONSUMED] + [Outcome.DUPLICATE] * 3
    assert effects.count() == 1


@pytest.mark.parametrize("attempt", range(5))
def test_dispatch_message_keeps_the_order_of_a_key_when_consumers_have_its_rows(effects, attempt):
    first, second = published("a", "first"), published("a", "second")

    later, earlier = run_at_once(lambda: handle(second), lambda: handle(first))

    assert earlier == Outcome.CONSUMED
    assert later in {Outcome.CONSUMED, Outcome.DEFERRED}
    if later == Outcome.DEFERRED:
        assert handle(second) == Outcome.CONSUMED
    assert list(effects.values_list("value", flat=True)) == ["first", "second"]


@pytest.mark.parametrize("attempt", range(5))
def test_settle_published_and_the_consumer_meet_on_one_row(effects, attempt):
    pk = append()
    token = claim().token

    settled, outcome = run_at_once(lambda: relay.settle_published(ids=[pk], token=token, now=NOW), lambda: handle(pk))

    assert outcome == Outcome.CONSUMED
    assert settled == 1
    row = row_of(pk)
    assert (row.status, row.claim_token, row.published_at) == (Status.CONSUMED, None, NOW)


def test_settle_published_waits_for_a_consumer_that_is_at_work_and_then_adds_the_place_alone(monkeypatch):
    """The consumer holds the row's lock while the relay settles; the relay finds it consumed when it gets its turn."""
    pk = append()
    token = claim().token
    at_work, settles = threading.Event(), threading.Event()

    def work(event, *, event_id):
        at_work.set()
        assert settles.wait(10)

    def settle():
        assert at_work.wait(10)
        settles.set()
        later = NOW + timedelta(seconds=1)
        return relay.settle_published(ids=[pk], token=token, now=later, by="relay", positions={pk: (3, 70)})

    monkeypatch.setitem(registry._handlers, EVENT_TYPE, work)
    outcome, settled = run_at_once(lambda: handle(pk), settle)

    assert (outcome, settled) == (Outcome.CONSUMED, 1)
    row = row_of(pk)
    assert (row.status, row.published_at, row.ready_shard) == (Status.CONSUMED, NOW, None)
    assert (row.published_by, row.published_partition, row.published_offset) == ("relay", 3, 70)


@pytest.mark.parametrize("attempt", range(3))
def test_rescan_and_consumer_meet_on_one_row(effects, attempt):
    pk = published()

    _, outcome = run_at_once(lambda: rescan([pk]), lambda: handle(pk))

    assert outcome == Outcome.CONSUMED
    assert row_of(pk).status == Status.CONSUMED
    assert effects.count() == 1


def test_consumers_relays_and_rescan_end_with_one_effect_for_each_event(effects):
    ids = [published(f"key{number % 4}", str(number)) for number in range(24)]

    def consume():
        return [handle(pk) for pk in ids]

    def disturb():
        for _ in range(10):
            rescan(ids)
            taken = claim(limit=5)
            relay.settle_published(ids=[row.id for row in taken.rows], token=taken.token, now=NOW)

    answers = run_at_once(consume, consume, disturb, disturb)

    assert not [answer for answer in answers if isinstance(answer, Exception)]
    for pk in ids:
        OutboxMessage.objects.filter(pk=pk).exclude(status=Status.CONSUMED).update(
            status=Status.PUBLISHED, published_at=NOW, claim_token=None, lease_until=None
        )
        handle(pk)
    assert sorted(effects.values_list("value", flat=True), key=int) == [str(number) for number in range(24)]
    assert connection.in_atomic_block is False


def test_a_consumer_stays_in_the_group_while_its_handler_works_and_then_acknowledges(monkeypatch):
    """The handler's transaction is open on the second thread while the first answers the broker."""
    pk = append()
    transport = LocalTransport()
    relay.run_pass(transport=transport, clock=lambda: NOW, batch_size=9, lease_seconds=10, publish_seconds=5, seconds=9)
    seen_busy = threading.Event()
    threads = []

    class Source(LocalConsumer):
        def keep_alive(self):
            if LocalMessage.objects.filter(topic__contains="outbox").exists():  # not acknowledged yet
                seen_busy.set()

    def work(event, *, event_id):
        threads.append(threading.current_thread())
        assert seen_busy.wait(10)

    monkeypatch.setitem(registry._handlers, EVENT_TYPE, work)
    hands = SecondThread(every_seconds=0.01)
    consumer = EventConsumer(source=Source(), clock=lambda: NOW, wait=lambda _seconds: False, hands=hands)

    assert consumer.run_once(timeout_seconds=5) == {Outcome.CONSUMED: 1}
    hands.close()
    assert threads != [threading.current_thread()]
    assert (row_of(pk).status, LocalMessage.objects.count()) == (Status.CONSUMED, 0)
