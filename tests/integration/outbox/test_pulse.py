"""outbox/pulse.py: a consumer says every two seconds who and how far it is, and outlasts a database that is away."""

import pytest
from django.db import OperationalError

from outbox import pulse as pulse_module
from outbox.models import MinuteCount, Worker
from outbox.pulse import Pulse
from outbox.tally import TALLY
from outbox.transports import PartitionPosition
from outbox.workers import own_name, worker_name
from tests.outbox_rows import NOW

pytestmark = pytest.mark.django_db
NAME = worker_name(Worker.Kind.CONSUMER)


@pytest.fixture
def moment():
    """Hold the seconds of the clock that says when a beat is due."""
    return [0.0]


@pytest.fixture
def pulse(clock, moment):
    return Pulse(clock=clock, monotonic=lambda: moment[0])


def beat(pulse: Pulse, *, busy_seconds: float = 0.0) -> None:
    places = [PartitionPosition(topic="t", partition=2, position=7, end=12)]
    pulse.beat_if_due(positions=lambda: places, busy_seconds=busy_seconds)


def test_beat_if_due_writes_who_the_consumer_is_and_how_far(pulse):
    pulse.note_consumed(3)
    TALLY.take()
    TALLY.add("consumed", 3)

    beat(pulse, busy_seconds=61.234)

    row = Worker.objects.get()
    assert (row.name, row.kind, row.owner, row.heartbeat_at) == (NAME, Worker.Kind.CONSUMER, own_name(), NOW)
    assert row.state == {
        "partitions": [{"topic": "t", "partition": 2, "position": 7, "end": 12, "lag": 5}],
        "consumed": 3,
        "busy_seconds": 61.2,
    }
    assert MinuteCount.objects.get().consumed == 3


def test_beat_if_due_waits_two_seconds_between_two_beats(pulse, clock, moment, django_assert_num_queries):
    beat(pulse)
    clock.advance(5)
    moment[0] = 1.9
    with django_assert_num_queries(0):
        beat(pulse)

    moment[0] = 2.0
    beat(pulse)

    assert Worker.objects.get().heartbeat_at == clock.now


def test_beat_if_due_goes_on_when_the_database_is_away(pulse, moment, monkeypatch):
    def refuse(**_):
        raise OperationalError(2006, "gone away")

    monkeypatch.setattr(pulse_module.connection, "close", lambda: None)
    with monkeypatch.context() as away:
        away.setattr(pulse_module, "beat", refuse)
        beat(pulse)
    assert not Worker.objects.exists()

    moment[0] = 2.0
    beat(pulse)

    assert Worker.objects.get().name == NAME


def test_stop_removes_the_row(pulse):
    beat(pulse)

    pulse.stop()

    assert not Worker.objects.exists()
