"""outbox/checks/: mistakes are named at start, with their remedy."""

import inspect
from datetime import timedelta
from types import SimpleNamespace

import pytest
from django.core.checks import Tags, run_checks
from django.core.checks.registry import registry as check_registry
from django.core.management import call_command
from django.db import DatabaseError, connection
from django.test.utils import CaptureQueriesContext

from outbox import registry, transports
from outbox.checks import broker, database, wiring
from outbox.models import Worker
from outbox.transports import TopicShape, TransportUnavailable
from outbox.transports.kafka import KafkaTransport
from outbox.transports.kafka_settings import producer_settings
from smartflow.kernel.clock import utc_now
from tests.outbox_rows import EVENT_TYPE

KAFKA = "outbox.transports.kafka.KafkaTransport"
LOCAL = "outbox.transports.local.LocalTransport"
SQLITE = {"default": {"ENGINE": "django.db.backends.sqlite3"}}
MARIADB = {"default": {"ENGINE": "django.db.backends.mysql", "OPTIONS": {"isolation_level": "read committed"}}}


@pytest.fixture(autouse=True)
def _nothing_open(monkeypatch):
    """Another test may have opened this process's transport."""
    monkeypatch.setattr(transports, "_transports", {})


def found() -> dict[str, str]:
    return {message.id: str(message.hint) for message in run_checks(tags=["outbox"])}


def ids(messages) -> list[str]:
    return [message.id for message in messages]


def test_checks_find_nothing_as_shipped():
    assert found() == {}


@pytest.mark.parametrize(("lease", "is_wrong"), [(5, True), (6, True), (7, False)])
def test_check_lease_when_a_publish_may_outlast_it(settings, lease, is_wrong):
    settings.OUTBOX_DELIVERY_TIMEOUT_SECONDS, settings.OUTBOX_LEASE_SECONDS = 5, lease

    assert ("outbox.E001" in found()) is is_wrong


def test_check_topics_when_a_domain_has_none(settings):
    settings.OUTBOX_TOPICS = {}

    assert "OUTBOX_TOPICS" in found()["outbox.E002"]


def test_check_handlers_when_nobody_handles_an_event(monkeypatch):
    monkeypatch.delitem(registry._handlers, EVENT_TYPE)

    assert "@handles" in found()["outbox.W003"]


@pytest.mark.parametrize(("level", "is_wrong"), [("read committed", False), ("repeatable read", True), (None, True)])
def test_check_isolation_when_relays_would_block_each_other(monkeypatch, level, is_wrong):
    one = {"ENGINE": "django.db.backends.mysql", "OPTIONS": {"isolation_level": level} if level else {}}
    monkeypatch.setattr(wiring, "settings", SimpleNamespace(DATABASES={"default": one}))

    assert ids(wiring.check_isolation()) == ["outbox.E004"] * is_wrong


def test_check_handled_types_when_the_catalog_lost_an_event(monkeypatch):
    monkeypatch.setitem(registry._handlers, "chat.removed.event", lambda event, *, event_id: None)

    assert "smartflow/events" in found()["outbox.E005"]


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        ({"acks": "1"}, "acks is not `all`"),
        ({"acks": None}, "acks is not `all`"),
        ({"enable.idempotence": False}, "enable.idempotence is not set"),
        ({"message.timeout.ms": 10_000}, "message.timeout.ms is not shorter than the lease"),
    ],
)
def test_inspect_producer_when_an_acknowledgement_would_promise_less(change, fact):
    messages = wiring.inspect_producer(producer_settings() | change)

    assert ids(messages) == ["outbox.E006"]
    assert fact in messages[0].msg


def test_check_producer_finds_nothing_in_what_the_transport_uses(settings):
    settings.KAFKA_BOOTSTRAP_SERVERS = ["127.0.0.1:1"]

    assert wiring.check_producer() == []


def test_check_prefork_when_the_transport_is_open_before_the_fork(settings):
    settings.OUTBOX_TRANSPORT = LOCAL
    transports.get_transport()

    assert "get_transport()" in found()["outbox.W007"]


@pytest.mark.parametrize(("size", "is_wrong"), [(19, True), (20, False), (2000, False), (2001, True)])
def test_check_batch_size_when_it_is_extreme(settings, size, is_wrong):
    settings.OUTBOX_BATCH_SIZE = size

    assert ("outbox.W008" in found()) is is_wrong


@pytest.mark.parametrize(("relays", "is_wrong"), [(64, False), (65, True)])
def test_check_relays_when_some_would_have_no_shard(settings, relays, is_wrong):
    settings.OUTBOX_RELAYS, settings.OUTBOX_TRANSPORT = relays, KAFKA

    assert ("outbox.E009" in found()) is is_wrong


@pytest.mark.parametrize(
    ("relays", "databases", "is_wrong"), [(1, SQLITE, False), (2, SQLITE, True), (2, MARIADB, False)]
)
def test_check_sqlite_when_relays_would_wait_for_each_other(monkeypatch, relays, databases, is_wrong):
    monkeypatch.setattr(wiring, "settings", SimpleNamespace(OUTBOX_RELAYS=relays, DATABASES=databases))

    assert ids(wiring.check_sqlite()) == ["outbox.W010"] * is_wrong


@pytest.mark.parametrize(("relays", "transport", "is_wrong"), [(1, LOCAL, False), (2, LOCAL, True), (2, KAFKA, False)])
def test_check_shared_transport_when_relays_have_one_table(settings, relays, transport, is_wrong):
    settings.OUTBOX_RELAYS, settings.OUTBOX_TRANSPORT = relays, transport

    assert ("outbox.W011" in found()) is is_wrong


@pytest.mark.parametrize(("seconds", "is_wrong"), [(5, True), (6, False), (60, False), (61, True)])
def test_check_relay_pass_when_it_is_too_short_or_too_long(settings, seconds, is_wrong):
    settings.OUTBOX_DELIVERY_TIMEOUT_SECONDS, settings.OUTBOX_RELAY_PASS_SECONDS = 5, seconds

    assert ("outbox.W012" in found()) is is_wrong


@pytest.mark.parametrize(("seconds", "is_wrong"), [(10, True), (11, False)])
def test_check_rescan_when_events_may_still_be_under_way(settings, seconds, is_wrong):
    settings.OUTBOX_LEASE_SECONDS, settings.OUTBOX_RESCAN_SECONDS = 10, seconds

    assert ("outbox.W013" in found()) is is_wrong


@pytest.mark.parametrize(
    ("first", "web", "is_wrong"), [(0, 8000, False), (9200, 8000, False), (7990, 8000, True), (7984, 8000, False)]
)
def test_check_metrics_when_the_port_would_be_the_webs(settings, first, web, is_wrong):
    settings.METRICS_PORT, settings.PORT = first, web

    assert ("outbox.E014" in found()) is is_wrong


@pytest.mark.parametrize(
    ("host", "token", "is_wrong"),
    [
        ("127.0.0.1", "", False),
        ("localhost", "", False),
        ("::1", "", False),
        ("0.0.0.0", "", True),
        ("metrics.example", "", True),
        ("0.0.0.0", "t" * 16, False),
    ],
)
def test_check_metrics_when_the_network_could_read_them(settings, host, token, is_wrong):
    settings.METRICS_PORT, settings.METRICS_HOST, settings.METRICS_TOKEN = 9200, host, token

    assert ("outbox.W015" in found()) is is_wrong


def test_checks_of_a_start_ask_neither_database_nor_broker(settings, db, monkeypatch):
    settings.KAFKA_BOOTSTRAP_SERVERS = ["127.0.0.1:1"]
    asked = []
    monkeypatch.setattr("outbox.transports.kafka.describe_topics", lambda **_: asked.append(1))

    with CaptureQueriesContext(connection) as queries:
        found()

    assert (len(queries), asked) == (0, [])


OURS = [check for check in check_registry.registered_checks if check.__module__ == database.__name__]


def test_database_checks_run_only_when_a_database_is_named(db):
    assert len(OURS) == 9
    with CaptureQueriesContext(connection) as queries:
        assert [check(app_configs=None) for check in OURS] == [[]] * 9
    assert len(queries) == 0


def test_database_checks_say_nothing_while_the_database_is_away(monkeypatch, db):
    def fail(*_args, **_kwargs):
        raise DatabaseError("gone")

    monkeypatch.setattr(connection.introspection, "table_names", fail)

    assert [check(app_configs=None, databases=["default"]) for check in OURS] == [[]] * 9


def test_database_checks_say_nothing_before_the_first_migration(monkeypatch, db):
    monkeypatch.setattr(connection.introspection, "table_names", lambda: [])

    assert [check(app_configs=None, databases=["default"]) for check in OURS] == [[]] * 9


@pytest.mark.parametrize(
    ("transport", "consumers", "gone", "is_wrong"),
    [(LOCAL, 1, 1, False), (LOCAL, 2, 0, True), (KAFKA, 2, 0, False)],
)
def test_check_local_consumers_when_several_read_one_table(settings, db, transport, consumers, gone, is_wrong):
    settings.OUTBOX_TRANSPORT = transport
    now = utc_now()
    for number in range(consumers + gone):
        lease_until = now + timedelta(seconds=10 if number < consumers else -10)
        moments = {"started_at": now, "heartbeat_at": now, "lease_until": lease_until}
        Worker.objects.create(name=f"consumer {number}", kind=Worker.Kind.CONSUMER, **moments)

    messages = run_checks(tags=[Tags.database], databases=["default"])

    assert ids(messages) == ["outbox.W028"] * is_wrong


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, []),
        ({"partitions": 3}, ["outbox.W040"]),
        ({"copies": 0}, ["outbox.W041"]),
        ({"retention_seconds": 7 * 86400 + 1}, ["outbox.W042"]),
        ({"retention_seconds": None}, ["outbox.W042"]),
        ({"retention_seconds": 3600}, []),
    ],
)
def test_inspect_topics_when_a_topic_differs_from_the_settings(change, expected):
    shape = {"partitions": 6, "copies": 1, "retention_seconds": 7 * 86400} | change

    assert ids(broker.inspect_topics({"t": TopicShape(**shape)})) == expected


def test_check_topics_of_broker_runs_for_deploy_only(settings, monkeypatch):
    settings.KAFKA_BOOTSTRAP_SERVERS = ["127.0.0.1:1"]
    monkeypatch.setattr(
        "outbox.transports.kafka.describe_topics",
        lambda **_: {"t": TopicShape(partitions=1, copies=1, retention_seconds=1)},
    )

    assert found() == {}
    assert ids(run_checks(tags=["outbox"], include_deployment_checks=True)) == ["outbox.W040"]


def test_check_topics_of_broker_says_nothing_while_it_is_away(settings, monkeypatch):
    def fail(**_kwargs):
        raise TransportUnavailable("no broker")

    settings.KAFKA_BOOTSTRAP_SERVERS = ["127.0.0.1:1"]
    monkeypatch.setattr("outbox.transports.kafka.describe_topics", fail)

    assert broker.check_topics_of_broker() == []


def test_every_check_has_an_id_of_its_own_and_a_hint():
    """Read from the code: an id is written once, and never without a hint."""
    text = "".join(inspect.getsource(module) for module in (wiring, database, broker))
    names = [part.partition('"')[0] for part in text.split('id="')[1:]]

    assert len(names) == len(set(names)) >= 15
    assert text.count("hint=") == len(names)


def test_the_check_command_passes_with_database_checks(db):
    call_command("check", databases=["default"], fail_level="WARNING")


def test_a_transport_can_be_made_without_a_broker(settings):
    settings.KAFKA_BOOTSTRAP_SERVERS = ["127.0.0.1:1"]

    with pytest.raises(TransportUnavailable):
        KafkaTransport().check(timeout_seconds=0.1)
