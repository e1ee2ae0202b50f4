"""outbox/transports/kafka.py on a real broker: topics, sizes, forks, and a broker that stops answering."""

import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from outbox import transports
from outbox.models import OutboxMessage, Status
from outbox.relay import Bounds, Relay, run_until_empty
from outbox.rescan import Rescan
from outbox.testing.contract import outgoing, receive, texts
from outbox.transports import PublishedRow, TransportUnavailable
from outbox.transports.kafka import MAX_MESSAGE_BYTES, KafkaTransport
from tests.outbox_rows import append, make_consumer, run_pass

pytestmark = pytest.mark.services
SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "services.py"


def services(verb: str) -> None:
    subprocess.run([sys.executable, str(SCRIPT), verb, "kafka"], check=True, capture_output=True, timeout=60)


@pytest.fixture
def broker_stops():
    """Return a function that freezes the broker; it goes on at the end whatever happens."""
    yield lambda: services("pause")
    services("resume")


@pytest.fixture
def admin(settings):
    return AdminClient({"bootstrap.servers": ",".join(settings.KAFKA_BOOTSTRAP_SERVERS)})


def partitions(admin: AdminClient, topic: str) -> int:
    return len(admin.list_topics(timeout=10).topics[topic].partitions)


def test_publish_creates_an_absent_topic_with_the_configured_partitions(kafka, transport, admin):
    assert kafka not in admin.list_topics(timeout=10).topics

    assert transport.publish([outgoing()], timeout_seconds=10).failures == {}

    assert partitions(admin, kafka) == 3


def test_publish_creates_a_topic_that_only_an_old_row_names(kafka, transport, admin):
    old = f"{kafka}-old"

    assert transport.publish([outgoing("one"), outgoing("two", topic=old)], timeout_seconds=10).failures == {}

    assert partitions(admin, old) == 3


def test_a_consumer_creates_an_absent_topic_and_reads_it_at_once(kafka, transport, admin):
    consumer = transport.open_consumer()
    try:
        consumer.poll(max_messages=1, timeout_seconds=0.2)
        assert partitions(admin, kafka) == 3
        transport.publish([outgoing("first")], timeout_seconds=10)
        started = time.monotonic()
        assert texts(receive(consumer, wanted=1)) == ["first"]
        assert time.monotonic() - started < 8
    finally:
        consumer.close()


def test_publish_refuses_one_message_for_good_when_it_is_too_large(transport):
    first, huge, last = outgoing("one"), outgoing(b"x" * (MAX_MESSAGE_BYTES + 1)), outgoing("two")

    failures = transport.publish([first, huge, last], timeout_seconds=10).failures

    assert {pk: failure.is_permanent for pk, failure in failures.items()} == {huge.outbox_id: True}
    assert failures[huge.outbox_id].reason == "MSG_SIZE_TOO_LARGE"


def test_publish_refuses_only_the_message_that_the_topic_has_no_room_for(kafka, transport, admin):
    """A batch on the wire is refused as a whole; its small messages did nothing wrong."""
    topic = NewTopic(kafka, num_partitions=1, replication_factor=1, config={"max.message.bytes": "100000"})
    admin.create_topics([topic])[kafka].result(10)
    noise = os.urandom(120_000)  # nothing that could be compressed
    messages = [outgoing(noise[start : start + 20_000]) for start in range(0, 100_000, 20_000)]
    huge = outgoing(noise)

    failures = transport.publish([*messages[:3], huge, *messages[3:]], timeout_seconds=10).failures

    assert {pk: failure.is_permanent for pk, failure in failures.items()} == {huge.outbox_id: True}


def test_publish_blames_the_topic_and_takes_the_rest_when_a_name_is_no_topics(transport):
    """Known to be refused by the second time, its messages fail at once; those behind them pass all the same."""
    for _ in range(2):
        bad = [outgoing(topic="not a topic!") for _ in range(2)]
        messages = [outgoing("one"), bad[0], outgoing("two"), bad[1], outgoing("three")]

        failures = transport.publish(messages, timeout_seconds=10).failures

        assert set(failures) == {message.outbox_id for message in bad}
        assert {(failure.is_permanent, failure.is_of_topic) for failure in failures.values()} == {(False, True)}


def publish_from_child(answers) -> None:
    message = outgoing("from the child")
    answers.put(len(transports.get_transport().publish([message], timeout_seconds=10).failures))


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_publish_works_in_a_child_that_was_forked_after_the_parent_published(kafka, settings, monkeypatch):
    settings.OUTBOX_TRANSPORT = "outbox.transports.kafka.KafkaTransport"
    monkeypatch.setattr(transports, "_transports", {})
    parent = transports.get_transport()
    assert parent.publish([outgoing("from the parent")], timeout_seconds=10).failures == {}

    fork = multiprocessing.get_context("fork")
    answers = fork.Queue()
    child = fork.Process(target=publish_from_child, args=(answers,))
    child.start()
    assert answers.get(timeout=30) == 0
    child.join(10)

    assert child.exitcode == 0
    assert parent.publish([outgoing("again")], timeout_seconds=10).failures == {}
    consumer = parent.open_consumer()
    assert sorted(texts(receive(consumer, wanted=3))) == ["again", "from the child", "from the parent"]
    consumer.close()
    parent.close()


def test_a_member_that_leaves_gives_its_unacknowledged_messages_to_another(kafka, transport):
    first = transport.open_consumer()
    transport.publish([outgoing(str(number), key=f"k{number}") for number in range(30)], timeout_seconds=10)
    half = receive(first, wanted=30)[:15]
    first.acknowledge(half)
    second = transport.open_consumer()
    first.close()

    missing = {str(number) for number in range(30)} - set(texts(half))
    received: set[str] = set()
    deadline = time.monotonic() + 30
    while not missing <= received and time.monotonic() < deadline:
        received |= set(texts(second.poll(max_messages=100, timeout_seconds=0.2)))
    second.close()
    assert missing <= received


def test_check_says_so_when_nothing_listens(settings):
    settings.KAFKA_BOOTSTRAP_SERVERS = ["127.0.0.1:1"]
    started = time.monotonic()

    with pytest.raises(TransportUnavailable):
        KafkaTransport().check(timeout_seconds=0.5)
    assert time.monotonic() - started < 3


@pytest.mark.django_db(transaction=True)
def test_a_pass_gives_its_rows_back_uncounted_when_nothing_listens(settings, clock, kafka):
    settings.KAFKA_BOOTSTRAP_SERVERS = ["127.0.0.1:1"]
    settings.OUTBOX_DELIVERY_TIMEOUT_SECONDS = 1
    append()
    transport = KafkaTransport()
    started = time.monotonic()

    assert run_pass(transport, clock).is_transport_down

    assert time.monotonic() - started < settings.OUTBOX_LEASE_SECONDS
    assert OutboxMessage.objects.values_list("status", "retry_count", "claim_token").get() == (Status.PENDING, 0, None)
    with pytest.raises(TransportUnavailable):
        transport.check()


@pytest.mark.django_db(transaction=True)
@pytest.mark.alone
def test_a_frozen_broker_delays_and_neither_loses_nor_counts(settings, clock, kafka, transport, handler, broker_stops):
    settings.OUTBOX_DELIVERY_TIMEOUT_SECONDS = 2
    relay = Relay(transport=transport, clock=clock, bounds=Bounds(batch_size=50, lease_seconds=10, publish_seconds=3))
    append("a", "before")
    assert run_until_empty(relay, seconds=30).published == 1
    for number in range(5):
        append("a", str(number))

    broker_stops()
    started = time.monotonic()
    assert run_until_empty(relay, seconds=30).is_transport_down
    assert time.monotonic() - started < settings.OUTBOX_LEASE_SECONDS - 1
    waiting = OutboxMessage.objects.filter(status=Status.PENDING)
    assert set(waiting.values_list("retry_count", "claim_token")) == {(0, None)}
    assert waiting.count() == 5
    started = time.monotonic()
    assert run_until_empty(relay, seconds=30).is_transport_down
    assert time.monotonic() - started < 3
    services("resume")

    deadline = time.monotonic() + 20
    while waiting.exists() and time.monotonic() < deadline:
        clock.advance(1)
        run_until_empty(relay, seconds=30)
    assert not waiting.exists()
    consumer = make_consumer(clock, transport=transport)
    while OutboxMessage.objects.exclude(status=Status.CONSUMED).exists() and time.monotonic() < deadline + 20:
        consumer.run_once(timeout_seconds=0.2)
        clock.advance(1)
        run_until_empty(relay, seconds=30)
    consumer._source.close()
    assert handler.messages == ["before", "0", "1", "2", "3", "4"]


@pytest.mark.django_db(transaction=True)
def test_rescan_brings_back_what_the_group_skipped_and_nothing_that_still_waits(
    settings, clock, kafka, transport, handler
):
    ids = [append("a", str(number)) for number in range(4)]
    assert run_pass(transport, clock).published == 4
    partition = OutboxMessage.objects.values_list("published_partition", flat=True).distinct().get()
    skipping = Consumer(
        {"bootstrap.servers": settings.KAFKA_BOOTSTRAP_SERVERS[0], "group.id": settings.OUTBOX_CONSUMER_GROUP}
    )
    skipping.commit(offsets=[TopicPartition(kafka, partition, 2)], asynchronous=False)
    skipping.close()
    rescan = Rescan(transport=transport, unknown_seconds=30)

    assert rescan.run(now=clock(), pages=1) == 0  # they may still be on their way
    clock.advance(6)
    assert rescan.run(now=clock(), pages=1) == 2
    clock.advance(86_400)
    assert rescan.run(now=clock(), pages=1) == 0

    pending = OutboxMessage.objects.filter(status=Status.PENDING).values_list("id", flat=True)
    assert sorted(pending) == ids[:2]
    consumer = make_consumer(clock, transport=transport)
    deadline = time.monotonic() + 60
    while OutboxMessage.objects.exclude(status=Status.CONSUMED).exists() and time.monotonic() < deadline:
        run_pass(transport, clock)
        consumer.run_once(timeout_seconds=0.2)
        clock.advance(1)
    assert handler.messages == ["0", "1", "2", "3"]


def test_passed_over_says_so_when_the_broker_does_not_answer(settings):
    settings.KAFKA_BOOTSTRAP_SERVERS = ["127.0.0.1:1"]
    row = PublishedRow(outbox_id=1, topic="t", partition=0, offset=0)

    with pytest.raises(TransportUnavailable):
        KafkaTransport().passed_over([row])


def test_passed_over_names_rows_of_a_topic_that_is_gone_or_was_made_anew(kafka, transport):
    transport.publish([outgoing("one", topic=kafka)], timeout_seconds=10)
    gone = PublishedRow(outbox_id=1, topic=f"{kafka}-gone", partition=0, offset=0)
    anew = PublishedRow(outbox_id=2, topic=kafka, partition=0, offset=10_000)
    unknown = PublishedRow(outbox_id=3, topic=kafka, partition=None, offset=None)

    assert transport.passed_over([gone, anew, unknown]) == {1, 2}
