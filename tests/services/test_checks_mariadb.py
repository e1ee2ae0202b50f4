"""outbox/checks/database.py and broker.py against what they ask: a real MariaDB, a real Kafka."""

import time
from datetime import timedelta

import pytest
from django.core.checks import Tags, run_checks
from django.db import connection

from outbox.checks import broker, database
from outbox.transports.kafka import describe_topics, ensure_topics
from smartflow.kernel.clock import utc_now

pytestmark = [pytest.mark.services, pytest.mark.django_db(transaction=True)]
WRONG = "outbox_checks_wrong"


@pytest.fixture(autouse=True)
def only_mariadb():
    if connection.vendor != "mysql":
        pytest.skip("DATABASE_URL is not MariaDB's")


@pytest.fixture
def wrong_table(monkeypatch):
    """Stand a table with every mistake in the place of ours."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"CREATE TABLE {WRONG} (message_key varchar(9) COLLATE utf8mb4_general_ci, request_id varchar(9)"
            " COLLATE utf8mb4_general_ci, event_id varchar(9) COLLATE utf8mb4_bin, created_at datetime(3),"
            " updated_at datetime(6)) ENGINE=MyISAM"
        )
    monkeypatch.setattr(database, "TABLE", WRONG)
    yield
    with connection.cursor() as cursor:
        cursor.execute(f"DROP TABLE {WRONG}")


def found() -> dict[str, str]:
    messages = run_checks(tags=[Tags.database], databases=["default"])
    return {message.id: message.msg for message in messages if message.id.startswith("outbox.")}


def test_database_checks_find_nothing_in_what_the_migrations_made():
    assert found() == {}


def test_database_checks_name_the_columns_and_the_engine(wrong_table):
    messages = found()

    assert set(messages) == {"outbox.E020", "outbox.E021", "outbox.E022"}
    assert f"{WRONG}.message_key has the collation utf8mb4_general_ci" in messages["outbox.E020"]
    assert f"{WRONG}.created_at" in messages["outbox.E021"]
    assert "MyISAM" in messages["outbox.E022"]


def test_check_session_isolation_when_the_server_gave_another():
    with connection.cursor() as cursor:
        cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    try:
        assert "REPEATABLE-READ" in found()["outbox.E023"]
    finally:
        connection.close()


def test_check_skip_locked_when_the_server_is_too_old(monkeypatch):
    monkeypatch.setattr(connection.features, "has_select_for_update_skip_locked", False)

    with connection.cursor() as cursor:
        cursor.execute("SELECT VERSION()")
        ((version,),) = cursor.fetchall()
    assert version in found()["outbox.E024"]


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("innodb_flush_log_at_trx_commit", "2", "outbox.W025"),
        ("max_allowed_packet", str(1024 * 1024), "outbox.W026"),
    ],
)
def test_checks_of_the_server_when_a_variable_promises_less(monkeypatch, variable, value, expected):
    real = database._variable
    monkeypatch.setattr(
        database, "_variable", lambda connection, *names: value if variable in names else real(connection, *names)
    )

    assert set(found()) == {expected}


@pytest.mark.parametrize(
    ("seconds", "words"), [(-1.5, "1.5 s ahead of"), (1.5, "1.5 s behind"), (0.9, None), (-0.9, None)]
)
def test_check_clock_skew_when_the_clocks_differ(monkeypatch, seconds, words):
    monkeypatch.setattr(database, "utc_now", lambda: utc_now() + timedelta(seconds=seconds))

    messages = found()

    assert (words in messages["outbox.W027"]) if words else messages == {}


def test_check_topics_of_broker_reads_what_the_broker_has(kafka, settings):
    assert broker.check_topics_of_broker() == []
    settings.OUTBOX_TOPIC_PARTITIONS = 2
    assert ensure_topics([kafka], timeout_seconds=10)
    settings.OUTBOX_TOPIC_PARTITIONS = 3

    shape = describe_topics(timeout_seconds=10)[kafka]
    messages = broker.check_topics_of_broker()

    assert (shape.partitions, shape.copies) == (2, 1)
    assert [message.id for message in messages if message.id != "outbox.W042"] == ["outbox.W040"]


def test_check_topics_of_broker_waits_no_longer_than_it_may(settings):
    settings.KAFKA_BOOTSTRAP_SERVERS = ["127.0.0.1:1"]
    started = time.monotonic()

    assert broker.check_topics_of_broker() == []
    assert time.monotonic() - started < 3
