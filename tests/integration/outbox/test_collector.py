"""outbox/collector.py: what the rows say to a scraper."""

from datetime import timedelta

import pytest
from django.db import OperationalError, connection
from django.test.utils import CaptureQueriesContext
from prometheus_client import CollectorRegistry

from outbox import collector
from outbox.database_clock import database_now
from outbox.models import KeyHold, OutboxMessage, PausedType, Status, Worker
from tests.outbox_rows import EVENT_TYPE, append, change, row_of

pytestmark = pytest.mark.django_db


@pytest.fixture
def scrape():
    """Return a function that reads every value anew: name and labels → value."""

    def read():
        registry = CollectorRegistry()
        registry.register(collector.OutboxCollector())
        return {
            (sample.name, *sample.labels.values()): sample.value
            for family in registry.collect()
            for sample in family.samples
        }

    return read


def add_worker(name, kind, *, seconds_ago=1.0, **state):
    beat = database_now() - timedelta(seconds=seconds_ago)
    lease_until = beat + timedelta(seconds=10)
    moments = {"started_at": beat, "heartbeat_at": beat, "lease_until": lease_until}
    Worker.objects.create(name=name, kind=kind, owner="o", state=state, **moments)


def test_an_idle_outbox_is_at_zero(scrape):
    values = scrape()

    assert values["outbox_database_up",] == 1
    assert (
        values["outbox_lag_seconds",] == values["outbox_oldest_pending_seconds",] == values["outbox_blocked_keys",] == 0
    )
    assert {value for (name, *_), value in values.items() if name == "outbox_rows"} == {0}
    assert values["outbox_uncovered_shards",] == 64


def test_depth_tells_lag_from_what_is_blocked(scrape):
    now = database_now()
    held, waiting, _ready, published, dead = (append(key=f"k{n}", now=now) for n in range(5))
    change(held, created_at=now - timedelta(hours=1), ready_shard=None)
    KeyHold.objects.create(message_key=row_of(held).message_key, head_id=dead, since=now)
    change(waiting, next_retry_at=now + timedelta(minutes=5), created_at=now - timedelta(minutes=30))
    change(published, status=Status.PUBLISHED, published_at=now - timedelta(seconds=90))
    change(dead, status=Status.DEAD, last_error="HandlerMissing: nothing handles 4711")

    values = scrape()

    assert values["outbox_oldest_pending_seconds",] == pytest.approx(3600, abs=5)
    assert values["outbox_lag_seconds",] < 5
    assert values["outbox_oldest_published_seconds",] == pytest.approx(90, abs=5)
    assert values["outbox_blocked_keys",] == 1
    states = {
        state: values["outbox_rows", state] for state in ("pending", "ready", "waiting", "held", "published", "dead")
    }
    assert states == {"pending": 3, "ready": 1, "waiting": 1, "held": 1, "published": 1, "dead": 1}
    assert values["outbox_dead_letters", EVENT_TYPE, "HandlerMissing"] == 1


def test_dead_letters_are_told_apart_by_the_kind_of_error_and_never_by_its_message(scrape):
    for number in range(12):
        change(append(key=f"k{number}"), status=Status.DEAD, last_error=f"<{number}> is no name of an error")
    given_up = append(key="given up")
    change(given_up, status=Status.DEAD, last_error="ValueError: x", discarded_at=database_now())

    values = {name: value for name, value in scrape().items() if name[0] == "outbox_dead_letters"}

    assert values == {("outbox_dead_letters", EVENT_TYPE, "other"): 10}  # the kinds, which are cut at ten


def test_workers_show_breaker_shards_lag_and_heartbeat(scrape):
    add_worker("relay-0", "relay", shards=[0, 31], breaker="open")
    add_worker("relay-1", "relay", seconds_ago=60, shards=[32, 63], breaker="open")
    place = {"topic": "t", "partition": 3, "position": 5, "end": 12, "lag": 7}
    add_worker("consumer a:1", "consumer", partitions=[place])

    values = scrape()

    assert values["outbox_breaker_open", "relay-0"] == 1
    assert values["outbox_breaker_open", "relay-1"] == 0  # nobody is there to claim anything
    assert values["outbox_uncovered_shards",] == 32
    assert (values["outbox_live_workers", "relay"], values["outbox_live_workers", "consumer"]) == (1, 1)
    assert values["outbox_heartbeat_age_seconds", "relay", "relay-1"] == pytest.approx(60, abs=5)
    assert values["outbox_consumer_lag_messages", "t", "3"] == 7


def test_a_paused_type_shows_since_when(scrape):
    since = database_now() - timedelta(hours=2)
    PausedType.objects.create(event_type=EVENT_TYPE, reason="r", by="b", paused_at=since)

    assert scrape()["outbox_paused_since", EVENT_TYPE] == pytest.approx(since.timestamp(), abs=1)


def test_what_the_process_counts_is_shown_once(scrape):
    before = scrape()
    collector.TALLY.add("consumed", 3)
    collector.TALLY.add("retried", 2)
    after = scrape()

    grown = {name[0]: after[name] - before[name] for name in after if name[0].endswith("_total")}
    assert {name: value for name, value in grown.items() if value} == {
        "outbox_consumed_total": 3,
        "outbox_retried_total": 2,
        "outbox_attempts_total": 5,
    }


def test_several_scrapers_cost_one_look():
    one = collector.OutboxCollector()
    with CaptureQueriesContext(connection) as queries:
        first = {family.name for family in one.collect()}
        looked = len(queries)
        second = {family.name for family in one.collect()}

    assert first == second
    assert len(queries) == looked <= 10


def test_a_database_that_is_away_is_a_value(scrape, monkeypatch):
    def fail(**_kwargs):
        raise OperationalError(2006, "gone")

    monkeypatch.setattr(collector, "overview", fail)

    values = scrape()

    assert values["outbox_database_up",] == 0
    assert "outbox_published_total" in {name for name, *_ in values}
    assert "outbox_lag_seconds" not in {name for name, *_ in values}


def test_a_database_that_hangs_keeps_one_thread_only(monkeypatch):
    monkeypatch.setattr(collector, "_WAIT_SECONDS", 0.01)
    one = collector.OutboxCollector()
    with one._lock:  # another scrape is reading
        values = {
            family.name: family.samples[0].value for family in one.collect() if family.name == "outbox_database_up"
        }

    assert values == {"outbox_database_up": 0}


def test_registering_reads_nothing():
    with CaptureQueriesContext(connection) as queries:
        CollectorRegistry().register(collector.OutboxCollector())

    assert len(queries) == 0
    assert OutboxMessage.objects.count() == 0
