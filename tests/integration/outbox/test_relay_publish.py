"""relay.run_pass: publish, then settle what is still this claim's."""

import logging
from datetime import timedelta

import pytest
from django.db import connection
from django.db.models import QuerySet
from django.test.utils import CaptureQueriesContext

from outbox import metrics, relay
from outbox.dead_letters import requeue_dead_letters
from outbox.dispatch import Outcome, dispatch_message
from outbox.models import Attempt, KeyHold, OutboxMessage, Status
from outbox.tally import TALLY
from outbox.transports import PublishFailure
from outbox.workers import own_name
from tests.outbox_rows import (
    NOW,
    RecordingTransport,
    SteppedSeconds,
    append,
    change,
    claim,
    make_relay,
    row_of,
    run_pass,
    wire,
)

pytestmark = pytest.mark.django_db
REFUSED = PublishFailure(reason="MSG_SIZE_TOO_LARGE", is_permanent=True)
AWAY = PublishFailure(reason="_MSG_TIMED_OUT", is_permanent=False)


@pytest.fixture
def transport():
    return RecordingTransport()


def test_run_pass_publishes_in_order_and_settles(transport, clock):
    ids = [append("a"), append("b"), append("a")]

    result = run_pass(transport, clock, batch_size=2)

    assert sorted(transport.ids) == ids
    assert [pk for pk in transport.ids if pk != ids[1]] == [ids[0], ids[2]]
    assert result.published == 3
    assert set(OutboxMessage.objects.values_list("status", "published_at", "claim_token", "lease_until")) == {
        (Status.PUBLISHED, NOW, None, None)
    }


def test_run_pass_settles_nothing_before_the_acknowledgement(transport, clock):
    pk = append()
    seen = []
    transport.during_publish = lambda: seen.append(row_of(pk).status)

    run_pass(transport, clock)

    assert seen == [Status.PENDING]


def test_run_pass_buries_a_row_at_once_when_it_can_never_be_published(transport, clock):
    refused, follower = append("a"), append("a")
    transport.failures[refused] = REFUSED

    result = run_pass(transport, clock)

    row = row_of(refused)
    assert (row.status, row.last_error, row.retry_count) == (Status.DEAD, "MSG_SIZE_TOO_LARGE", 0)
    assert (row.claim_token, row.lease_until) == (None, None)
    assert (result.dead, result.published, result.is_transport_down) == (1, 1, False)
    assert row_of(follower).status == Status.PUBLISHED


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        ("{", "the envelope is not JSON"),
        ("[" * 10_000, "the envelope is not JSON"),
        ("[]", "the envelope is not an object"),
        ('{"event_id":"e"}', "event_type is missing or of the wrong type"),
    ],
)
def test_run_pass_buries_an_unreadable_row_with_the_reason_and_publishes_the_rest(transport, clock, payload, reason):
    damaged, other = append("a"), append("b")
    change(damaged, payload=payload)

    run_pass(transport, clock)

    row = row_of(damaged)
    assert (row.status, row.last_error) == (Status.DEAD, f"unreadable payload: {reason}")
    assert row.retry_count == 0
    assert transport.ids == [other]


def test_run_pass_buries_a_row_whose_envelope_is_of_another_event(transport, clock):
    pk = append()
    change(pk, event_id="another")

    run_pass(transport, clock)

    assert row_of(pk).status == Status.DEAD
    assert transport.ids == []


def test_run_pass_counts_no_attempt_when_the_broker_is_away(transport, clock):
    pk = append()
    transport.failures[pk], transport.is_away = AWAY, True

    result = run_pass(transport, clock)

    row = row_of(pk)
    assert result.is_transport_down
    assert (row.status, row.retry_count, row.claim_token) == (Status.PENDING, 0, None)
    assert (row.next_retry_at, row.ready_shard) == (None, row.shard)
    assert row.last_error == "not published: _MSG_TIMED_OUT"


def test_run_pass_leaves_no_row_dead_when_the_broker_is_away_for_an_hour(transport, clock):
    ids = [append("a"), append("a"), append("b")]
    transport.failures, transport.is_away = dict.fromkeys(ids, AWAY), True
    for _ in range(360):
        run_pass(transport, clock)
        clock.advance(10)
    assert set(OutboxMessage.objects.values_list("status", "retry_count")) == {(Status.PENDING, 0)}
    assert not Attempt.objects.exists()

    transport.failures, transport.is_away = {}, False
    run_pass(transport, clock)

    assert sorted(transport.ids) == ids
    assert [pk for pk in transport.ids if pk != ids[2]] == ids[:2]


def test_run_until_empty_claims_nothing_while_the_breaker_is_open_and_asks_before_it_goes_on(transport, clock, caplog):
    caplog.set_level(logging.INFO, logger="outbox.relay")
    monotonic = SteppedSeconds()
    relay_ = make_relay(transport, clock, monotonic)
    pk = append()
    transport.failures[pk] = AWAY
    transport.is_away = True

    tried = [relay.run_until_empty(relay_, seconds=30) for _ in range(3)]
    monotonic.now += 10
    tried.append(relay.run_until_empty(relay_, seconds=30))

    assert [(result.claimed, result.is_transport_down) for result in tried] == [(1, True), *[(0, True)] * 3]
    transport.failures, transport.is_away = {}, False
    monotonic.now += 10
    assert relay.run_until_empty(relay_, seconds=30).published == 1
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        "Publishing pauses",
        "Publishing goes on",
    ]


def test_run_until_empty_outlives_an_hour_without_broker_with_one_line_each_way(transport, clock, caplog):
    caplog.set_level(logging.INFO, logger="outbox.relay")
    monotonic = SteppedSeconds()
    relay_ = make_relay(transport, clock, monotonic)
    ids = [append("a") for _ in range(3)]
    transport.failures, transport.is_away = dict.fromkeys(ids, AWAY), True
    for _ in range(3600):
        relay.run_until_empty(relay_, seconds=0.5)
        monotonic.now += 1
        clock.advance(1)

    transport.failures, transport.is_away = {}, False
    monotonic.now += 10
    relay.run_until_empty(relay_, seconds=30)

    assert transport.ids == ids
    assert set(OutboxMessage.objects.values_list("status", "retry_count")) == {(Status.PUBLISHED, 0)}
    assert not Attempt.objects.exists()
    assert len(caplog.records) == 2


def test_run_pass_writes_down_where_the_broker_keeps_each_message_and_who_published_it(transport, clock):
    first, second = append("a"), append("a")

    run_pass(transport, clock)

    places = OutboxMessage.objects.order_by("id").values_list(
        "id", "published_partition", "published_offset", "published_by"
    )
    assert list(places) == [(first, 0, 0, own_name()), (second, 0, 1, own_name())]


def test_run_pass_observes_how_long_each_event_took_to_its_first_acknowledgement(transport, clock, handler):
    first, second, refused, again = (append(key) for key in "abcd")
    change(again, published_at=NOW, retry_count=1)
    transport.failures[refused] = REFUSED
    clock.advance(3)
    before = observed()

    run_pass(transport, clock)

    assert set(transport.ids) == {first, second, again}
    after = observed()
    assert [b - a for a, b in zip(before, after, strict=True)] == pytest.approx([2, 6.0, 1])


def observed() -> list[float]:
    """Return the events that were observed, their seconds in all, and the batches."""
    samples = {
        sample.name: sample.value
        for histogram in (metrics.PUBLISH_LATENCY, metrics.PUBLISH_BATCH)
        for metric in histogram.collect()
        for sample in metric.samples
        if not sample.labels
    }
    names = ("publish_latency_seconds_count", "publish_latency_seconds_sum", "publish_batch_seconds_count")
    return [samples[f"outbox_{name}"] for name in names]


def test_run_pass_keeps_one_attempt_of_a_row_that_can_never_be_published(transport, clock):
    pk = append()
    transport.failures[pk] = REFUSED

    run_pass(transport, clock)

    attempt = Attempt.objects.get()
    assert (attempt.message_id, attempt.step, attempt.number, attempt.error) == (pk, "publish", 1, REFUSED.reason)
    assert (attempt.at, attempt.by) == (NOW, own_name())


def test_run_pass_buries_a_row_and_keeps_its_attempt_or_neither(transport, clock, monkeypatch):
    pk = append()
    transport.failures[pk] = REFUSED
    with monkeypatch.context() as lost:
        lost.setattr(QuerySet, "bulk_create", lambda *_args, **_more: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run_pass(transport, clock)
    assert (row_of(pk).status, Attempt.objects.count()) == (Status.PENDING, 0)

    clock.advance(11)
    run_pass(transport, clock)

    assert (row_of(pk).status, Attempt.objects.count()) == (Status.DEAD, 1)


def test_run_pass_counts_a_refusal_behind_the_tries_to_handle_the_row(transport, clock):
    pk = append()
    change(pk, retry_count=3)
    transport.failures[pk] = REFUSED

    run_pass(transport, clock)

    assert (Attempt.objects.get().number, row_of(pk).retry_count) == (4, 3)


def test_run_pass_leaves_what_follows_an_unreadable_row_unpublished_and_holds_it(transport, clock):
    damaged, follower = append("a"), append("a")
    change(damaged, payload="{")

    run_pass(transport, clock)

    assert transport.ids == []
    assert KeyHold.objects.get().head_id == damaged
    row = row_of(follower)
    assert (row.status, row.ready_shard, row.next_retry_at, row.claim_token) == (Status.PENDING, None, None, None)


def test_run_pass_counts_and_names_an_event_that_was_committed_after_a_later_one_of_its_key(transport, clock, caplog):
    TALLY.take()
    early, late = append("a"), append("a")
    relay_ = make_relay(transport, clock, SteppedSeconds())
    payload = OutboxMessage.objects.get(pk=early)
    OutboxMessage.objects.filter(pk=early).delete()
    relay.run_until_empty(relay_, seconds=30)
    payload.save(force_insert=True)

    relay.run_until_empty(relay_, seconds=30)

    assert transport.ids == [late, early]
    counts = TALLY.take()
    assert (counts["violations"], counts["published"]) == (1, 2)
    (record,) = [record for record in caplog.records if "later one" in record.getMessage()]
    assert (record.outbox_id, record.later_outbox_id, record.key) == (early, late, "a")


def test_run_pass_counts_no_violation_when_rows_go_round_again(transport, clock):
    TALLY.take()
    relay_ = make_relay(transport, clock, SteppedSeconds())
    ids = [append("a") for _ in range(3)]
    relay.run_until_empty(relay_, seconds=30)
    for pk in ids[:2]:
        change(pk, status=Status.PENDING, ready_shard=row_of(pk).shard)

    relay.run_until_empty(relay_, seconds=30)

    assert transport.ids == [*ids, *ids[:2]]
    assert "violations" not in TALLY.take()


def test_run_pass_counts_no_violation_when_the_broker_let_an_earlier_message_time_out(transport, clock):
    TALLY.take()
    monotonic = SteppedSeconds()
    relay_ = make_relay(transport, clock, monotonic)
    head, _follower = append("a"), append("a")
    transport.failures[head] = AWAY
    relay.run_until_empty(relay_, seconds=30)

    transport.failures.clear()
    monotonic.now += 10
    clock.advance(10)
    relay.run_until_empty(relay_, seconds=30)

    assert row_of(head).status == Status.PUBLISHED
    assert "violations" not in TALLY.take()


def publish_late(relay_, key="a"):
    """Let a row of the key show up behind a later one that was published; return its number."""
    early, late = append(key), append(key)
    payload = OutboxMessage.objects.get(pk=early)
    OutboxMessage.objects.filter(pk=early).delete()
    relay_.run_batch()
    assert row_of(late).status == Status.PUBLISHED
    payload.save(force_insert=True)
    return early


@pytest.mark.parametrize("other", ["handled", "buried", "unanswered"])
def test_run_pass_watches_the_order_whatever_becomes_of_other_keys_in_the_batch(transport, clock, handler, other):
    relay_ = make_relay(transport, clock, SteppedSeconds())
    publish_late(relay_)
    pk = append("b")
    TALLY.take()
    if other == "handled":
        transport.during_publish = lambda: dispatch_message(value=wire(pk), clock=clock)
    else:
        transport.failures[pk] = REFUSED if other == "buried" else AWAY

    relay_.run_batch()

    assert TALLY.take()["violations"] == 1


def test_run_pass_watches_the_order_of_rows_that_were_handled_before_the_settle(transport, clock, handler):
    relay_ = make_relay(transport, clock, SteppedSeconds())
    early = publish_late(relay_)
    change(row_of(early).pk + 1, status=Status.CONSUMED, consumed_at=NOW)
    transport.during_publish = lambda: dispatch_message(value=wire(early), clock=clock)
    TALLY.take()

    relay_.run_batch()

    assert row_of(early).status == Status.CONSUMED
    assert TALLY.take()["violations"] == 1


def test_run_pass_counts_no_violation_when_an_operator_sends_a_dead_row_round_again(transport, clock):
    relay_ = make_relay(transport, clock, SteppedSeconds())
    refused, _follower = append("a"), append("a")
    transport.failures[refused] = REFUSED
    relay_.run_batch()
    transport.failures.clear()
    TALLY.take()

    requeue_dead_letters(ids=[refused], by="alice", reason="the limit is higher now", now=NOW)
    relay_.run_batch()

    assert row_of(refused).status == Status.PUBLISHED
    assert "violations" not in TALLY.take()


def test_run_pass_counts_no_violation_when_a_row_fails_before_the_settle_and_its_follower_does_not(
    transport, clock, handler
):
    relay_ = make_relay(transport, clock, SteppedSeconds())
    head, _follower = append("a"), append("a")
    handler.error = RuntimeError("not yet")
    transport.during_publish = lambda: dispatch_message(value=wire(head), clock=clock)
    relay_.run_batch()
    Attempt.objects.all().delete()
    TALLY.take()

    transport.during_publish = lambda: None
    change(head, next_retry_at=None, ready_shard=row_of(head).shard)
    relay_.run_batch()

    assert row_of(head).status == Status.PUBLISHED
    assert "violations" not in TALLY.take()


def test_run_pass_keeps_the_order_of_a_key_when_its_head_was_not_acknowledged(transport, clock):
    head, follower = append("a"), append("a")
    transport.failures[head] = AWAY
    run_pass(transport, clock)
    assert row_of(follower).status == Status.PUBLISHED

    assert dispatch_message(value=wire(follower), clock=clock) == Outcome.DEFERRED


def test_settle_published_leaves_a_row_that_another_relay_claimed_meanwhile():
    pk = append()
    slow = claim(lease_seconds=10)
    other = claim(now=NOW + timedelta(seconds=11))

    assert relay.settle_published(ids=[pk], token=slow.token, now=NOW + timedelta(seconds=12)) == 0
    assert (row_of(pk).status, row_of(pk).claim_token) == (Status.PENDING, other.token)
    assert relay.settle_published(ids=[pk], token=other.token, now=NOW + timedelta(seconds=13)) == 1


def test_settle_published_works_when_the_lease_is_over_and_nobody_took_the_row():
    pk = append()
    slow = claim(lease_seconds=10)

    assert relay.settle_published(ids=[pk], token=slow.token, now=NOW + timedelta(seconds=60)) == 1
    assert row_of(pk).status == Status.PUBLISHED


@pytest.mark.parametrize("failure", [REFUSED, AWAY])
def test_run_pass_leaves_a_row_that_another_relay_claimed_meanwhile_when_publishing_failed(transport, clock, failure):
    pk = append()
    transport.failures[pk] = failure
    other = []
    transport.during_publish = lambda: other.append(claim(now=NOW + timedelta(seconds=11)))

    run_pass(transport, clock)

    row = row_of(pk)
    assert (row.status, row.claim_token, row.last_error) == (Status.PENDING, other[0].token, None)


def test_run_pass_keeps_consumed_when_the_consumer_commits_before_the_settle(transport, clock, handler):
    """And the row learns where its message is all the same."""
    pk = append("a", "one")

    def consume():
        dispatch_message(value=wire(pk), clock=clock)
        clock.advance(1)

    transport.during_publish = consume

    result = run_pass(transport, clock)

    row = row_of(pk)
    assert (row.status, row.published_at, row.consumed_at, row.claim_token) == (Status.CONSUMED, NOW, NOW, None)
    assert (row.published_by, row.published_partition, row.published_offset) == (own_name(), 0, 0)
    assert (result.published, result.fenced) == (1, 0)
    assert handler.messages == ["one"]


def test_run_pass_keeps_the_first_place_when_a_row_that_went_round_again_is_consumed_before_the_settle(
    transport, clock, handler
):
    pk = append()
    change(pk, published_at=NOW, published_by="another", published_partition=7, published_offset=70)
    transport.during_publish = lambda: dispatch_message(value=wire(pk), clock=clock)

    result = run_pass(transport, clock)

    row = row_of(pk)
    assert (row.status, row.published_by, row.published_offset) == (Status.CONSUMED, "another", 70)
    assert (result.published, result.fenced) == (1, 0)


def test_run_pass_needs_no_statement_more_when_the_consumer_was_faster_with_some_rows(transport, clock, handler):
    def count(prefix):
        ids = [append(f"{prefix}{number}") for number in range(20)]
        with CaptureQueriesContext(connection) as queries:
            relay_.run_batch()
        assert {row_of(pk).published_by for pk in ids} == {own_name()}
        return len([query for query in queries if "agent_outbox_messages" in query["sql"]])

    relay_ = make_relay(transport, clock, SteppedSeconds())
    statements = count("first")
    statements_of_dispatch = []

    def consume():
        with CaptureQueriesContext(connection) as queries:
            dispatch_message(value=wire(transport.ids[-1]), clock=clock)
        statements_of_dispatch.extend(query for query in queries if "agent_outbox_messages" in query["sql"])

    transport.during_publish = consume
    assert count("second") - len(statements_of_dispatch) == statements


def test_run_pass_keeps_the_retry_when_the_consumer_fails_before_the_settle(transport, clock, handler):
    pk = append()
    handler.error = RuntimeError("not yet")
    transport.during_publish = lambda: dispatch_message(value=wire(pk), clock=clock)

    result = run_pass(transport, clock)

    row = row_of(pk)
    assert (row.status, row.retry_count, row.published_at) == (Status.PENDING, 1, None)
    assert row.next_retry_at >= NOW + timedelta(seconds=1)
    assert (result.published, result.fenced) == (1, 0)


def test_run_pass_counts_only_rows_that_another_relay_took_as_fenced(transport, clock, handler):
    handled, failed, taken, settled = (append(key) for key in "abcd")
    TALLY.take()

    def meanwhile():
        dispatch_message(value=wire(handled), clock=clock)
        handler.error = RuntimeError("not yet")
        dispatch_message(value=wire(failed), clock=clock)
        clock.advance(11)
        assert {row.id for row in claim(now=clock()).rows} == {taken, settled}
        OutboxMessage.objects.filter(pk=settled).update(
            status=Status.PUBLISHED, published_at=clock(), published_by="another", ready_shard=None,
            claim_token=None, lease_until=None,
        )  # fmt: skip

    transport.during_publish = meanwhile
    relay_ = make_relay(transport, clock, SteppedSeconds())
    _, result = relay_.run_batch()

    assert (result.published, result.fenced) == (2, 2)
    counts = TALLY.take()
    assert (counts["published"], counts["fenced"]) == (2, 2)
    assert row_of(settled).published_by == "another"


def test_run_pass_keeps_dead_when_the_consumer_buries_the_row_before_the_settle(transport, clock, handler):
    pk = append()
    change(pk, max_retry=1)
    handler.error = RuntimeError("for good")
    transport.during_publish = lambda: dispatch_message(value=wire(pk), clock=clock)

    run_pass(transport, clock)

    assert row_of(pk).status == Status.DEAD
