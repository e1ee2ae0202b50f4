"""A consumer that librdkafka keeps out of its group starts anew, and only while the broker answers."""

import pytest
from confluent_kafka import KafkaError, KafkaException

from outbox.transports import kafka as kafka_module
from tests.transport_contract import outgoing, receive, texts

pytestmark = pytest.mark.services


class LeftOut:
    """Behaves as librdkafka does when its coordinator's connection is never opened again."""

    def __init__(self, *, broker_answers: bool) -> None:
        self.broker_answers = broker_answers

    def memberid(self):
        return ""

    def list_topics(self, timeout):
        if not self.broker_answers:
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))

    def consume(self, _count, _seconds):
        return []

    def close(self):
        """Return; the real one may hang here."""


@pytest.fixture
def consumer(transport, monkeypatch):
    monkeypatch.setattr(kafka_module, "_LEFT_OUT_SECONDS", 0.05)
    made = transport.open_consumer()
    transport.publish([outgoing("one")], timeout_seconds=10)
    assert texts(receive(made, 1)) == ["one"]
    yield made
    made.close()


def test_consumer_left_out_of_its_group_starts_anew(consumer, transport):
    consumer._consumer.close()
    consumer._consumer = LeftOut(broker_answers=True)
    transport.publish([outgoing("two")], timeout_seconds=10)

    delivered = texts(receive(consumer, 1))

    assert delivered[-1] in ("one", "two")  # nothing was acknowledged, so the first may come again
    assert not isinstance(consumer._consumer, LeftOut)


def test_consumer_waits_while_the_broker_is_away(consumer):
    consumer._consumer.close()
    consumer._consumer = left_out = LeftOut(broker_answers=False)

    for _ in range(20):
        assert consumer.poll(max_messages=1, timeout_seconds=0.01) == []

    assert consumer._consumer is left_out
