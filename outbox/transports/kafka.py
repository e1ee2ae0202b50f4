"""The transport on Kafka; the only file that imports its client.

The producer is idempotent and waits for all in-sync replicas; the consumer stores an offset only after the database
holds the result.
"""

import logging
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import cast

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic  # type: ignore[attr-defined]
from django.conf import settings

from outbox.registry import all_topics
from outbox.transports.base import (
    Delivery,
    Headers,
    OutgoingMessage,
    PartitionPosition,
    PublishedRow,
    PublishFailure,
    PublishResult,
    TopicShape,
    TransportUnavailable,
)
from outbox.transports.kafka_failures import failure_of
from outbox.transports.kafka_settings import MAX_MESSAGE_BYTES, common_settings, consumer_settings, producer_settings
from outbox.transports.set_aside import SetAside
from outbox.transports.stall import Offsets, Partition, StallWatch, is_passed_over

logger = logging.getLogger(__name__)

_PROBE_SECONDS = 1.0
# Longer than a killed member, or one that a broker's return left behind, keeps the others waiting: session.timeout.ms.
# Larger: messages wait longer behind a stuck member; smaller: a member that is slowly let in is thrown out again.
_STALL_SECONDS = 12.0
_LONGEST_STALL_SECONDS = 300.0
# SIGTERM is followed by SIGKILL; what is not committed by then is delivered again.
_CLOSE_SECONDS = 5.0


class KafkaTransport:
    """Publishes through one producer per process."""

    keeps_positions = True

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._producer: Producer | None = None
        self._known_topics: set[str] = set()

    def publish(self, messages: Sequence[OutgoingMessage], *, timeout_seconds: float) -> PublishResult:
        """Produce in order, then serve delivery reports until all came or the time is up."""
        deadline = time.monotonic() + timeout_seconds
        self._ensure_topics({message.topic for message in messages})
        producer = self._get_producer()
        batch = _Batch(producer, deadline)
        batch.send(messages)
        # The broker refuses a request as a whole: alone, the small messages that shared it with a large one pass.
        for message in batch.too_large if len(messages) > 1 else ():
            batch.send([message])
        if passing := [failure for failure in batch.failures.values() if not failure.is_permanent]:
            self._give_up(producer, is_over=all(failure.is_of_topic for failure in passing))
        # copies: another thread that polls the same producer may still serve reports of this batch
        return PublishResult(failures=dict(batch.failures), positions=dict(batch.positions))

    def passed_over(self, rows: Sequence[PublishedRow]) -> set[int]:
        """Compare the rows' offsets with what the group has committed and what the broker still keeps."""
        seen = _look_from_outside({row.topic for row in rows})
        if seen is None:
            raise TransportUnavailable("the broker does not say how far the group is")
        return {row.outbox_id for row in rows if is_passed_over(row, seen=seen)}

    def check(self, *, timeout_seconds: float = 1.0) -> None:
        """Ask for the cluster's metadata. Raises: TransportUnavailable."""
        try:
            self._get_producer().list_topics(timeout=timeout_seconds)
        except KafkaException as error:
            raise TransportUnavailable(_name(error)) from error

    def open_consumer(self) -> "KafkaConsumer":
        """Join the consumer group; topics are created first where they are absent."""
        return KafkaConsumer()

    def close(self) -> None:
        """Wait shortly for what is on its way, then forget the producer."""
        if self._producer is not None:
            self._producer.flush(1.0)
            self._producer = None

    def _ensure_topics(self, topics: set[str]) -> None:
        """Create what is absent; rows keep the topic of the day they were written, so settings do not know all."""
        if not topics <= self._known_topics and ensure_topics(topics, timeout_seconds=_PROBE_SECONDS):
            self._known_topics |= topics

    def _get_producer(self) -> Producer:
        with self._lock:
            if self._producer is None:
                self._producer = Producer(producer_settings())
            return self._producer

    def _give_up(self, producer: Producer, *, is_over: bool) -> None:
        # What is still queued would arrive behind its own retry; once every report has come it is other threads'.
        # A new producer also leaves behind a fatal state, and what it believes of a topic.
        if not is_over:
            producer.purge()
        with self._lock:
            self._producer = None
            self._known_topics = set()


class _Batch:
    """The messages of one publish, and which of them are not acknowledged yet.

    Reports are served by whichever thread polls the producer, so `_waiting` counts this batch's alone.
    """

    def __init__(self, producer: Producer, deadline: float) -> None:
        self._producer = producer
        self._deadline = deadline
        self._waiting = 0
        self.failures: dict[int, PublishFailure] = {}
        self.positions: dict[int, tuple[int, int]] = {}
        self.too_large: list[OutgoingMessage] = []

    def send(self, messages: Sequence[OutgoingMessage]) -> None:
        """Queue the messages in order and serve reports until all came or the time is up."""
        unacknowledged = PublishFailure(reason="no acknowledgement in time", is_permanent=False)
        self.failures |= {message.outbox_id: unacknowledged for message in messages}
        self.too_large = []
        for message in messages:
            if not self._produce(message):
                break
        while self._waiting and time.monotonic() < self._deadline:
            self._producer.flush(0.05)

    def _produce(self, message: OutgoingMessage) -> bool:
        """Queue one message; false when the rest of the batch is not worth trying."""
        report = partial(self._take_report, message)
        while True:
            try:
                self._producer.produce(
                    message.topic,
                    value=message.value,
                    key=message.key.encode(),
                    on_delivery=report,
                    headers=list(message.headers) or None,
                )
            except BufferError:  # the local queue is full: serve reports until there is room
                if time.monotonic() > self._deadline:
                    return False
                self._producer.poll(0.05)
            except KafkaException as error:
                self.failures[message.outbox_id] = failure = failure_of(error.args[0].name())
                return failure.is_permanent or failure.is_of_topic  # the broker's own fault: stop
            else:
                self._waiting += 1
                return True

    def _take_report(self, message: OutgoingMessage, error: KafkaError | None, report: Message) -> None:
        self._waiting -= 1
        if error is None:
            del self.failures[message.outbox_id]
            self.positions[message.outbox_id] = (report.partition() or 0, report.offset() or 0)
            return
        self.failures[message.outbox_id] = failure_of(error.name())
        if error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
            self.too_large.append(message)


class KafkaConsumer:
    """One member of the group, on one thread.

    A broker that hangs can leave librdkafka (2.16) with a member that never gets another message: outside its group, or
    inside and deaf. Nothing tells these apart from an idle topic but the broker itself, hence the watch. The calls that
    wait for librdkafka's own main thread without a limit (memberid, assignment) are not used here.
    """

    def __init__(self, *, stall_seconds: float = _STALL_SECONDS) -> None:
        self._stall_seconds = self._window_seconds = stall_seconds
        self._start_anew()

    def _start_anew(self) -> None:
        self._is_subscribed = False
        self._watch = StallWatch(window_seconds=self._window_seconds, look=partial(_look_from_outside, all_topics()))
        self._aside = SetAside(most_bytes=8 * MAX_MESSAGE_BYTES)
        self._consumer = Consumer(consumer_settings())

    def poll(self, *, max_messages: int, timeout_seconds: float) -> list[Delivery]:
        """Return the next messages. Errors of the connection are waited out by librdkafka itself."""
        if not self._is_subscribed and not self._subscribe():
            raise TransportUnavailable("the topics cannot be read or created")
        if aside := self._aside.take(max_messages):
            return aside
        started = time.monotonic()
        try:
            # consume() waits for a full batch or the whole timeout, so only the first message is waited for
            messages = self._consumer.consume(1, timeout_seconds)
            if messages and max_messages > 1:
                messages += self._consumer.consume(max_messages - 1, 0)
        except KafkaException as error:
            raise TransportUnavailable(_name(error)) from error
        deliveries = self._sort_out(messages)
        if deliveries:
            self._window_seconds = self._stall_seconds
        # A process that was frozen in the middle of a poll has not waited longer than it asked to.
        elif self._watch.is_stalled(silent_seconds=min(time.monotonic() - started, timeout_seconds)):
            self._replace()
        return deliveries

    def keep_alive(self) -> None:
        """Answer the broker; what arrives is set aside, because pausing waits for librdkafka without a limit."""
        if self._is_subscribed:
            with suppress(KafkaException):  # asking for no message is a poll too: who is silent is thrown out
                self._aside.add(self._sort_out(self._consumer.consume(0 if self._aside.is_full() else 1, 0)))

    def positions(self) -> list[PartitionPosition]:
        """Return how far this member is, from what the client knows."""
        return self._watch.positions(self._end_of)

    def _end_of(self, place: Partition) -> int:
        with suppress(KafkaException):
            return self._consumer.get_watermark_offsets(TopicPartition(*place), cached=True)[1]
        return 0

    def _sort_out(self, messages: list[Message]) -> list[Delivery]:
        deliveries = []
        for message in messages:
            problem = message.error()
            if problem is None:
                deliveries.append(delivery := _delivery(message))
                self._watch.note_message((delivery.topic, delivery.partition), delivery.offset)
            elif problem.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                self._is_subscribed = False
            else:
                logger.info("A poll brought an error", extra={"error": problem.name()})
        return deliveries

    def _replace(self) -> None:
        logger.warning("Messages wait in Kafka and none arrives; the consumer starts anew")
        # Each start that brings no message doubles the wait: its own group may need longer to let it in.
        self._window_seconds = min(2 * self._window_seconds, _LONGEST_STALL_SECONDS)
        _close_aside(self._consumer)
        self._start_anew()

    def _subscribe(self) -> bool:
        # Topics first: a subscription to an absent topic learns of it only at the next refresh of the metadata.
        if not ensure_topics(all_topics(), timeout_seconds=_PROBE_SECONDS):
            return False
        watch, aside = self._watch, self._aside  # of this client: one that closes aside still reports what it loses

        def lose(_consumer: Consumer, partitions: list[TopicPartition]) -> None:
            watch.note_lost(_numbers(partitions))
            aside.forget(_numbers(partitions))

        self._consumer.subscribe(
            all_topics(),
            on_assign=lambda _consumer, partitions: watch.note_owned(_numbers(partitions)),
            on_revoke=lose,
            on_lost=lose,
        )
        self._is_subscribed = True
        return True

    def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Store the offset behind the last message of each partition."""
        latest = {(d.topic, d.partition): d.offset for d in deliveries}
        for (topic, partition), offset in latest.items():
            try:
                self._consumer.store_offsets(offsets=[TopicPartition(topic, partition, offset + 1)])
            except KafkaException as error:
                # The partition was taken away meanwhile: its new owner redelivers, and dispatch knows the row.
                logger.info("An offset could not be stored", extra={"topic": topic, "error": _name(error)})

    def close(self) -> None:
        """Commit what is stored and leave the group; a broker that hangs is not waited for."""
        _close_aside(self._consumer).join(_CLOSE_SECONDS)


def _close_aside(consumer: Consumer) -> threading.Thread:
    """Close in the background, because closing waits for a coordinator that may never be reached."""
    thread = threading.Thread(target=consumer.close, name="kafka-close", daemon=True)
    thread.start()
    return thread


def _look_from_outside(topics: Iterable[str]) -> dict[Partition, Offsets] | None:
    """
    Ask how far the topics and the group are; none when the broker does not answer within two seconds.

    A client made for this one question shares nothing with a member that is stuck. It is not an AdminClient, because
    list_consumer_group_offsets aborts the whole process when the broker hangs (librdkafka 2.16, rdkafka_queue.h).
    """
    # An observer never subscribes, so it is no member of the group. It logs nothing: the question is asked every 2 s.
    observer = Consumer(common_settings() | {"group.id": settings.OUTBOX_CONSUMER_GROUP, "log_level": 0})
    deadline = time.monotonic() + 2 * _PROBE_SECONDS
    try:
        known = observer.list_topics(timeout=_PROBE_SECONDS).topics
        partitions = [TopicPartition(t, number) for t in topics if t in known for number in known[t].partitions]
        return {
            (place.topic, place.partition): _offsets(observer, place, deadline)
            for place in observer.committed(partitions, timeout=_PROBE_SECONDS)
        }
    except KafkaException:
        return None


def _offsets(observer: Consumer, committed: TopicPartition, deadline: float) -> Offsets:
    left = max(deadline - time.monotonic(), 0.01)
    low, end = observer.get_watermark_offsets(TopicPartition(committed.topic, committed.partition), timeout=left)
    return Offsets(low=low, end=end, committed=committed.offset)


def _numbers(partitions: list[TopicPartition]) -> list[Partition]:
    return [(place.topic, place.partition) for place in partitions]


def ensure_topics(topics: Iterable[str], *, timeout_seconds: float) -> bool:
    """Create the topics that are absent, with the configured partitions; false when one may still be absent."""
    admin = AdminClient(common_settings())
    try:
        known = admin.list_topics(timeout=timeout_seconds).topics
    except KafkaException:
        return False
    wanted = [
        NewTopic(
            topic,
            num_partitions=settings.OUTBOX_TOPIC_PARTITIONS,
            replication_factor=settings.OUTBOX_TOPIC_REPLICATION,
            config={"max.message.bytes": str(MAX_MESSAGE_BYTES)},
        )
        for topic in sorted(topics)
        if topic not in known
    ]
    if not wanted:
        return True
    # The relay waits here with rows claimed, so an answer that does not come must not outlast their lease.
    created = admin.create_topics(wanted, operation_timeout=timeout_seconds, request_timeout=timeout_seconds)
    answers = [_is_created(future) for future in created.values()]
    return all(answers)


def describe_topics(*, timeout_seconds: float) -> dict[str, TopicShape]:
    """Return the shape of every topic of ours that exists, by name. Raises: TransportUnavailable."""
    admin = AdminClient(common_settings() | {"log_level": 0})
    try:
        known = admin.list_topics(timeout=timeout_seconds).topics
        ours = {name: known[name] for name in all_topics() if name in known}
        asked = [ConfigResource(ConfigResource.Type.TOPIC, name) for name in ours]
        answers = admin.describe_configs(asked, request_timeout=timeout_seconds) if asked else {}
        kept = {asked.name: int(future.result()["retention.ms"].value) for asked, future in answers.items()}
    except KafkaException as error:
        raise TransportUnavailable(_name(error)) from error
    return {
        name: TopicShape(
            partitions=len(topic.partitions),
            copies=min(len(partition.replicas) for partition in topic.partitions.values()),
            retention_seconds=kept[name] / 1000 if kept[name] >= 0 else None,
        )
        for name, topic in ours.items()
    }


def _is_created(future: Future[None]) -> bool:
    try:
        future.result()
    except KafkaException as error:
        code = error.args[0].code()
        if code != KafkaError.TOPIC_ALREADY_EXISTS:
            logger.info("A topic could not be created", extra={"error": _name(error)})
            return False
    return True


def _headers(message: Message) -> Headers:
    pairs = cast("list[tuple[str, bytes | None]]", message.headers() or [])  # a dict is what one may give, not get
    return tuple((name, value) for name, value in pairs if value is not None)


def _delivery(message: Message) -> Delivery:
    return Delivery(
        topic=message.topic() or "",
        partition=message.partition() or 0,
        offset=message.offset() or 0,
        key=(message.key() or b"").decode(errors="replace"),
        value=message.value() or b"",
        headers=_headers(message),
    )


def _name(error: KafkaException) -> str:
    return str(error.args[0].name())
