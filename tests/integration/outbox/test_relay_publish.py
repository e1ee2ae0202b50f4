"""relay.run_pass: publish, then settle what is still this claim's."""

from datetime import timedelta

import pytest

from outbox import relay
from outbox.dispatch import Outcome, dispatch_message
from outbox.models import OutboxMessage, Status
from outbox.transports import PublishFailure
from tests.outbox_rows import NOW, RecordingTransport, append, change, claim, row_of, run_pass, wire

pytestmark = pytest.mark.django_db
REFUSED = PublishFailure(reason="MSG_SIZE_TOO_LARGE", is_permanent=True)
AWAY = PublishFailure(reason="_MSG_TIMED_OUT", is_permanent=False)


@pytest.fixture
def transport():
    return RecordingTransport()


def test_run_pass_publishes_in_order_and_settles(transport, clock):
    ids = [append("a"), append("b"), append("a")]

    result = run_pass(transport, clock, batch_size=2)

    assert transport.ids == ids
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
    transport.failures[pk] = AWAY

    result = run_pass(transport, clock)

    row = row_of(pk)
    assert result.is_transport_down
    assert (row.status, row.retry_count, row.claim_token) == (Status.PENDING, 0, None)
    assert row.next_retry_at == NOW + timedelta(seconds=relay.UNAVAILABLE_WAIT_SECONDS)
    assert row.last_error == "not published: _MSG_TIMED_OUT"


def test_run_pass_leaves_no_row_dead_when_the_broker_is_away_for_an_hour(transport, clock):
    ids = [append("a"), append("a"), append("b")]
    transport.failures = dict.fromkeys(ids, AWAY)
    for _ in range(360):
        run_pass(transport, clock)
        clock.advance(10)
    assert set(OutboxMessage.objects.values_list("status", "retry_count")) == {(Status.PENDING, 0)}

    transport.failures = {}
    run_pass(transport, clock)

    assert transport.ids == ids


def test_run_pass_claims_nothing_while_the_transport_is_not_ready(transport, clock):
    pk = append()
    transport.is_ready = lambda: False

    result = run_pass(transport, clock)

    assert result.is_transport_down
    assert row_of(pk).claim_token is None


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
    pk = append("a", "one")
    transport.during_publish = lambda: dispatch_message(value=wire(pk), clock=clock)

    result = run_pass(transport, clock)

    row = row_of(pk)
    assert (row.status, row.consumed_at, row.claim_token) == (Status.CONSUMED, NOW, None)
    assert (result.published, result.fenced) == (0, 1)
    assert handler.messages == ["one"]


def test_run_pass_keeps_the_retry_when_the_consumer_fails_before_the_settle(transport, clock, handler):
    pk = append()
    handler.error = RuntimeError("not yet")
    transport.during_publish = lambda: dispatch_message(value=wire(pk), clock=clock)

    result = run_pass(transport, clock)

    row = row_of(pk)
    assert (row.status, row.retry_count, row.published_at) == (Status.PENDING, 1, None)
    assert row.next_retry_at >= NOW + timedelta(seconds=1)
    assert (result.published, result.fenced) == (0, 1)


def test_run_pass_keeps_dead_when_the_consumer_buries_the_row_before_the_settle(transport, clock, handler):
    pk = append()
    change(pk, max_retry=1)
    handler.error = RuntimeError("for good")
    transport.during_publish = lambda: dispatch_message(value=wire(pk), clock=clock)

    run_pass(transport, clock)

    assert row_of(pk).status == Status.DEAD


def test_rescan_published_sends_stuck_rows_round_again_and_leaves_the_rest():
    stuck, recent, done, dead = (append(key) for key in "abcd")
    old = NOW - timedelta(seconds=31)
    change(stuck, status=Status.PUBLISHED, published_at=old)
    change(recent, status=Status.PUBLISHED, published_at=NOW - timedelta(seconds=29))
    change(done, status=Status.CONSUMED, published_at=old, consumed_at=old)
    change(dead, status=Status.DEAD, published_at=old)

    assert relay.rescan_published(older_than=NOW - timedelta(seconds=30), now=NOW) == 1
    assert [row_of(pk).status for pk in (stuck, recent, done, dead)] == [
        Status.PENDING,
        Status.PUBLISHED,
        Status.CONSUMED,
        Status.DEAD,
    ]
    assert row_of(stuck).retry_count == 0
    assert [row.id for row in claim().rows] == [stuck]


def test_rescan_published_moves_no_more_than_its_limit_oldest_first():
    ids = [append() for _ in range(3)]
    for pk in ids:
        change(pk, status=Status.PUBLISHED, published_at=NOW - timedelta(hours=1))

    assert relay.rescan_published(older_than=NOW, now=NOW, limit=2) == 2
    assert row_of(ids[2]).status == Status.PUBLISHED


def test_prune_consumed_deletes_old_consumed_rows_only():
    old, recent, dead, pending = (append(key) for key in "abcd")
    long_ago = NOW - timedelta(days=8)
    change(old, status=Status.CONSUMED, consumed_at=long_ago)
    change(recent, status=Status.CONSUMED, consumed_at=NOW)
    change(dead, status=Status.DEAD, updated_at=long_ago, created_at=long_ago)
    change(pending, created_at=long_ago)

    assert relay.prune_consumed(older_than=NOW - timedelta(days=7)) == 1
    assert set(OutboxMessage.objects.values_list("id", flat=True)) == {recent, dead, pending}


def test_prune_consumed_deletes_a_bounded_batch():
    for _ in range(5):
        change(append(), status=Status.CONSUMED, consumed_at=NOW - timedelta(days=8))

    deleted = [relay.prune_consumed(older_than=NOW - timedelta(days=7), limit=2) for _ in range(4)]

    assert deleted == [2, 2, 1, 0]
