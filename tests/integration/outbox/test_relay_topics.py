"""A topic that the broker does not take: its rows wait, the others flow."""

import logging
from datetime import timedelta

import pytest

from outbox import relay
from outbox.breaker import LONGEST_TOPIC_WAIT_SECONDS
from outbox.models import OutboxMessage, Status
from outbox.transports import PublishFailure
from tests.outbox_rows import NOW, RecordingTransport, SteppedSeconds, append, change, make_relay, row_of

pytestmark = pytest.mark.django_db
AWAY = PublishFailure(reason="_MSG_TIMED_OUT", is_permanent=False)
NO_TOPIC = PublishFailure(reason="TOPIC_EXCEPTION", is_permanent=False, is_of_topic=True)


@pytest.fixture
def transport():
    return RecordingTransport()


@pytest.fixture
def topics(transport, clock):
    """Return a relay, its monotonic clock, rows of a topic that the broker does not take, and rows of one it does."""
    monotonic = SteppedSeconds()
    relay_ = make_relay(transport, clock, monotonic)
    bad, good = [append(f"bad{number}") for number in range(3)], [append(f"good{number}") for number in range(3)]
    OutboxMessage.objects.filter(pk__in=bad).update(topic="not a topic!")
    return relay_, monotonic, bad, good


def go_on(relay_, monotonic, clock, seconds):
    """Let so many seconds go by, one after the other, with a pass in each."""
    for _ in range(seconds):
        monotonic.now += 1
        clock.advance(1)
        relay.run_until_empty(relay_, seconds=30)


@pytest.mark.parametrize("failure", [NO_TOPIC, AWAY])
@pytest.mark.parametrize("is_alone", [True, False])
def test_run_until_empty_lets_a_topic_wait_that_a_broker_does_not_take_while_it_answers(
    transport, clock, topics, failure, is_alone, caplog
):
    """Whether its rows come with others or fill a batch: the others go out at once, and the log has one line."""
    relay_, monotonic, bad, good = topics
    transport.failures = dict.fromkeys(bad, failure)
    if is_alone:
        OutboxMessage.objects.filter(pk__in=good).update(next_retry_at=clock.now, ready_shard=None)
        relay_.run_batch()

    result = relay.run_until_empty(relay_, seconds=30)

    assert sorted(transport.ids) == good
    assert (result.is_transport_down, relay_.memory.breaker.is_open) == (False, False)
    row = row_of(bad[0])
    assert (row.status, row.retry_count, row.claim_token, row.ready_shard) == (Status.PENDING, 0, None, None)
    assert NOW + timedelta(seconds=1) <= row.next_retry_at <= NOW + timedelta(seconds=2)
    assert row.last_error == f"not published: {failure.reason}"
    assert relay_.memory.topics.is_any_open
    go_on(relay_, monotonic, clock, 600)
    assert set(OutboxMessage.objects.filter(pk__in=bad).values_list("status", "retry_count")) == {("pending", 0)}
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == [
        "The broker does not take a topic; its events wait in the table"
    ]
    transport.failures = {}
    go_on(relay_, monotonic, clock, round(LONGEST_TOPIC_WAIT_SECONDS * 1.2) + 2)
    assert sorted(transport.ids[3:]) == bad
    assert not relay_.memory.topics.is_any_open


def test_run_until_empty_tries_rows_of_a_refused_topic_no_more_until_it_is_time(transport, clock, topics):
    relay_, monotonic, bad, _good = topics
    transport.failures = dict.fromkeys(bad, NO_TOPIC)
    relay.run_until_empty(relay_, seconds=30)
    head, follower = append("late"), append("late")
    change(head, topic="not a topic!")
    before = append("mixed")
    behind = append("mixed")
    change(behind, topic="not a topic!")

    relay.run_until_empty(relay_, seconds=30)

    assert transport.ids[3:] == [before]
    rows = [row_of(pk) for pk in (head, follower, behind)]
    assert {(row.status, row.ready_shard, row.claim_token) for row in rows} == {(Status.PENDING, None, None)}
    assert {row.last_error for row in rows} == {"not published: the broker does not take not a topic!"}
    assert all(row.next_retry_at > clock.now for row in rows)
    go_on(relay_, monotonic, clock, 2)
    assert transport.ids[4:] == [head, follower, behind]


def test_run_until_empty_lets_rows_wait_whose_topic_took_others(transport, clock):
    """A partition without a leader: the topic itself goes on."""
    relay_ = make_relay(transport, clock, SteppedSeconds())
    lost, others = append("a"), [append("b"), append("c")]
    transport.failures[lost] = AWAY

    relay.run_until_empty(relay_, seconds=30)
    others.append(append("d"))
    relay.run_until_empty(relay_, seconds=30)

    assert sorted(transport.ids) == others
    assert row_of(lost).next_retry_at == NOW + timedelta(seconds=1)
    assert not relay_.memory.breaker.is_open
