"""What every transport promises, as one suite: a subclass gives the fixture `transport` and inherits the tests."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count

import pytest

from outbox.registry import all_topics
from outbox.transports import Delivery, OutgoingMessage, PublishedRow, PublishResult, Transport, TransportConsumer

OpenConsumer = Callable[[], TransportConsumer]
_numbers = count(1)
# A consumer group takes a few seconds to form; a transport without groups answers at once.
PATIENCE_SECONDS = 30


def outgoing(value: str | bytes = "hello", *, key: str = "k", topic: str | None = None) -> OutgoingMessage:
    """Return a message to the first topic of the settings, with a number of its own."""
    data = value.encode() if isinstance(value, str) else value
    return OutgoingMessage(outbox_id=next(_numbers), topic=topic or all_topics()[0], key=key, value=data)


def receive(consumer: TransportConsumer, *, wanted: int) -> list[Delivery]:
    """Poll until that many messages came."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    received: list[Delivery] = []
    while len(received) < wanted and time.monotonic() < deadline:
        received += consumer.poll(max_messages=100, timeout_seconds=0.2)
    return received


def texts(deliveries: list[Delivery]) -> list[str]:
    """Return the messages' values as texts."""
    return [delivery.value.decode() for delivery in deliveries]


def _published(message: OutgoingMessage, result: PublishResult) -> PublishedRow:
    partition, offset = result.positions.get(message.outbox_id, (None, None))
    return PublishedRow(outbox_id=message.outbox_id, topic=message.topic, partition=partition, offset=offset)


class TransportContract:
    """The promises of outbox/transports/base.py."""

    @pytest.fixture
    def open_consumer(self, transport: Transport) -> Iterator[OpenConsumer]:
        """Return a function that opens a consumer, closed at the end if the test did not."""
        opened: list[TransportConsumer] = []

        def make() -> TransportConsumer:
            opened.append(transport.open_consumer())
            return opened[-1]

        yield make
        for consumer in opened:
            consumer.close()

    def publish(self, transport: Transport, *messages: OutgoingMessage) -> None:
        """Publish all of them, or fail the test."""
        assert transport.publish(messages, timeout_seconds=10).failures == {}

    def test_publish_delivers_headers(self, transport: Transport, open_consumer: OpenConsumer) -> None:
        consumer = open_consumer()
        headers = (("traceparent", b"00-" + b"a" * 32), ("other", b"\xff"))

        self.publish(transport, replace(outgoing("with"), headers=headers), outgoing("without"))

        assert [delivery.headers for delivery in receive(consumer, wanted=2)] == [headers, ()]

    def test_publish_delivers_topic_key_and_value(self, transport: Transport, open_consumer: OpenConsumer) -> None:
        message = outgoing("hello", key="user 1")
        self.publish(transport, message)

        (delivery,) = receive(open_consumer(), wanted=1)

        assert (delivery.topic, delivery.key, delivery.value) == (message.topic, "user 1", b"hello")

    def test_publish_accepts_nothing(self, transport: Transport) -> None:
        assert transport.publish([], timeout_seconds=10) == PublishResult()

    @pytest.mark.parametrize("text", ["你好 🐉 é", "line\nbreak \u2028 \x00 nul", "x" * 300_000, "龙" * 100_000])
    def test_publish_delivers_a_value_whole_when_it_is_large_or_not_ascii(
        self, transport: Transport, open_consumer: OpenConsumer, text: str
    ) -> None:
        self.publish(transport, outgoing(text, key="键 🔑"))

        (delivery,) = receive(open_consumer(), wanted=1)

        assert delivery.value.decode() == text
        assert delivery.key == "键 🔑"

    def test_publish_delivers_a_large_batch_of_large_messages(
        self, transport: Transport, open_consumer: OpenConsumer
    ) -> None:
        self.publish(transport, *(outgoing(f"{number:03}" + "x" * 300_000) for number in range(80)))
        consumer = open_consumer()
        numbers: list[int] = []
        while len(numbers) < 80:
            deliveries = receive(consumer, wanted=1)
            assert deliveries
            numbers += [int(text[:3]) for text in texts(deliveries)]
            consumer.acknowledge(deliveries)

        assert numbers == list(range(80))

    def test_poll_keeps_the_order_of_each_key(self, transport: Transport, open_consumer: OpenConsumer) -> None:
        for start in (0, 60):
            messages = [outgoing(str(number), key=f"key{number % 7}") for number in range(start, start + 60)]
            self.publish(transport, *messages)

        by_key: defaultdict[str, list[int]] = defaultdict(list)
        for delivery in receive(open_consumer(), wanted=120):
            by_key[delivery.key].append(int(delivery.value))

        assert dict(by_key) == {f"key{rest}": list(range(rest, 120, 7)) for rest in range(7)}

    def test_poll_returns_nothing_in_time_when_there_is_nothing(
        self, transport: Transport, open_consumer: OpenConsumer
    ) -> None:
        self.publish(transport, outgoing())
        consumer = open_consumer()
        consumer.acknowledge(receive(consumer, wanted=1))
        started = time.monotonic()

        assert consumer.poll(max_messages=10, timeout_seconds=0.3) == []
        assert time.monotonic() - started < 1.5

    def test_poll_returns_no_more_than_asked_for(self, transport: Transport, open_consumer: OpenConsumer) -> None:
        self.publish(transport, *(outgoing(str(number)) for number in range(10)))
        consumer = open_consumer()
        received: list[str] = []
        while len(received) < 10:
            deliveries = consumer.poll(max_messages=3, timeout_seconds=1)
            assert len(deliveries) <= 3
            received += texts(deliveries)

        assert received == [str(number) for number in range(10)]

    def test_poll_never_returns_a_message_twice_to_the_consumer_that_has_it(
        self, transport: Transport, open_consumer: OpenConsumer
    ) -> None:
        self.publish(transport, outgoing("one"))
        consumer = open_consumer()

        assert texts(receive(consumer, wanted=1)) == ["one"]
        assert consumer.poll(max_messages=10, timeout_seconds=0.5) == []

    def test_a_message_is_delivered_again_until_it_is_acknowledged(
        self, transport: Transport, open_consumer: OpenConsumer
    ) -> None:
        self.publish(transport, outgoing("one"), outgoing("two"))
        for _ in range(2):
            consumer = open_consumer()
            assert texts(receive(consumer, wanted=2)) == ["one", "two"]
            consumer.close()

        consumer = open_consumer()
        consumer.acknowledge(receive(consumer, wanted=2))
        consumer.close()

        self.publish(transport, outgoing("three"))
        assert texts(receive(open_consumer(), wanted=1)) == ["three"]

    def test_acknowledge_covers_only_what_it_is_given(self, transport: Transport, open_consumer: OpenConsumer) -> None:
        self.publish(transport, *(outgoing(str(number)) for number in range(5)))
        first = open_consumer()
        first.acknowledge(receive(first, wanted=5)[:2])
        first.close()

        assert texts(receive(open_consumer(), wanted=3)) == ["2", "3", "4"]

    def test_acknowledge_is_not_implied_by_polling_on(self, transport: Transport, open_consumer: OpenConsumer) -> None:
        self.publish(transport, outgoing("one"))
        first = open_consumer()
        receive(first, wanted=1)
        for _ in range(6):  # longer than any interval at which offsets are committed
            first.poll(max_messages=10, timeout_seconds=0.2)
        first.close()

        assert texts(receive(open_consumer(), wanted=1)) == ["one"]

    def test_publish_twice_delivers_twice(self, transport: Transport, open_consumer: OpenConsumer) -> None:
        message = outgoing("again")
        self.publish(transport, message)
        self.publish(transport, message)

        assert texts(receive(open_consumer(), wanted=2)) == ["again", "again"]

    def test_a_consumer_that_was_there_first_gets_what_is_published_later(
        self, transport: Transport, open_consumer: OpenConsumer
    ) -> None:
        consumer = open_consumer()
        assert consumer.poll(max_messages=10, timeout_seconds=0.2) == []

        self.publish(transport, outgoing("late"))

        assert texts(receive(consumer, wanted=1)) == ["late"]

    def test_check_says_that_the_transport_answers(self, transport: Transport) -> None:
        transport.check(timeout_seconds=5)

    def test_passed_over_names_no_message_that_waits_and_every_one_that_was_acknowledged(
        self, transport: Transport, open_consumer: OpenConsumer
    ) -> None:
        messages = [outgoing(str(number)) for number in range(5)]
        result = transport.publish(messages, timeout_seconds=10)
        rows = [_published(message, result) for message in messages]
        consumer = open_consumer()
        deliveries = receive(consumer, wanted=5)

        assert transport.passed_over(rows) == set()

        consumer.acknowledge(deliveries[:2])
        consumer.close()
        assert transport.passed_over(rows) == {message.outbox_id for message in messages[:2]}
