"""A consumer that librdkafka keeps from its messages starts anew, and only while the broker answers and some wait."""

import time

import pytest

from outbox.registry import all_topics
from outbox.testing.contract import outgoing, receive, texts
from outbox.transports.kafka import KafkaConsumer, _look_from_outside

pytestmark = pytest.mark.services
WINDOW_SECONDS = 1.0


@pytest.fixture
def consumer(transport):
    """A member that has its partitions and has read one message."""
    made = KafkaConsumer(stall_seconds=WINDOW_SECONDS)
    transport.publish([outgoing("one")], timeout_seconds=10)
    first = receive(made, wanted=1)
    assert texts(first) == ["one"]
    made.acknowledge(first)
    yield made
    made.close()


def make_deaf(consumer):
    """Stop the fetching inside librdkafka: the member stays in its group, heartbeats and commits, and gets nothing."""
    consumer._consumer.pause(consumer._consumer.assignment())


def test_a_member_that_gets_nothing_while_messages_wait_is_replaced(consumer, transport, caplog):
    make_deaf(consumer)
    stuck = consumer._consumer
    transport.publish([outgoing("two")], timeout_seconds=10)
    started = time.monotonic()

    delivered = receive(consumer, wanted=1)

    assert texts(delivered) == ["two"]
    assert time.monotonic() - started < WINDOW_SECONDS + 6
    assert consumer._consumer is not stuck
    assert caplog.messages.count("Messages wait in Kafka and none arrives; the consumer starts anew") == 1
    consumer.acknowledge(delivered)


def test_a_member_outside_its_group_is_replaced(consumer, transport):
    consumer._consumer.unsubscribe()
    transport.publish([outgoing("two")], timeout_seconds=10)

    assert texts(receive(consumer, wanted=1)) == ["two"]


def test_a_member_without_anything_to_get_is_left_alone(consumer):
    idle = consumer._consumer

    for _ in range(15):
        assert consumer.poll(max_messages=1, timeout_seconds=WINDOW_SECONDS / 10) == []

    assert consumer._consumer is idle


def test_a_look_at_a_broker_that_is_away_says_so_in_time(kafka, settings):
    settings.KAFKA_BOOTSTRAP_SERVERS = ["127.0.0.1:1"]
    started = time.monotonic()

    assert _look_from_outside(all_topics()) is None

    assert time.monotonic() - started < 3


def test_a_start_that_brings_nothing_makes_the_next_wait_longer(consumer):
    consumer._window_seconds = 200.0

    consumer._replace()
    assert consumer._watch._window_seconds == 300.0
    consumer._window_seconds = 10.0
    consumer._replace()

    assert consumer._watch._window_seconds == 20.0
