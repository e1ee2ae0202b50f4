"""The outbox's Celery jobs: a relay's pass sends itself again, and while a part is away one line says so."""

import logging
import threading

import pytest
from celery.signals import worker_ready
from django.db import OperationalError

from outbox import jobs
from outbox.transports import TransportUnavailable

AWAY = OperationalError(2002, "Can't connect")
REFUSED = OperationalError(1054, "Unknown column")


@pytest.fixture
def sent(monkeypatch):
    """Collect the passes that were sent."""
    passes = []
    monkeypatch.setattr(jobs.run_relay_pass, "apply_async", lambda **options: passes.append(options))
    return passes


class Stop(threading.Event):
    """Nobody waits for it; it notes for how long they would have."""

    def __init__(self):
        super().__init__()
        self.waits = []

    def wait(self, timeout=None):
        self.waits.append(timeout)
        return self.is_set()


@pytest.fixture
def stop(monkeypatch):
    event = Stop()
    monkeypatch.setattr(jobs, "_stopping", event)
    monkeypatch.setattr(jobs, "_patience", jobs._Patience())
    return event


@pytest.fixture
def passes(monkeypatch, caplog, sent, stop):
    """Return a function that runs passes with the given endings and returns the lines logged."""
    caplog.set_level(logging.INFO, logger="outbox.jobs")
    monkeypatch.setattr(jobs, "is_away", lambda error: error is AWAY)
    # A pass closes the connection, and with it the test's transaction, in which nothing answers any more.
    monkeypatch.setattr(jobs, "_is_there", lambda: True)

    def run(*endings):
        for ending in endings:

            def run_free_slot(ending=ending, **_arguments):
                if isinstance(ending, Exception):
                    raise ending
                return ending

            monkeypatch.setattr(jobs.relay_loop, "run_free_slot", run_free_slot)
            jobs.run_relay_pass()
        return [record.getMessage() for record in caplog.records]

    return run


@pytest.mark.django_db
def test_run_relay_pass_says_once_that_the_database_went_away_and_came_back(passes):
    lines = passes(True, AWAY, AWAY, AWAY, True, True)
    assert lines == [
        "Publishing pauses: the database does not answer",
        "Publishing goes on: the database answers again",
    ]


@pytest.mark.django_db
def test_run_relay_pass_raises_when_the_database_refuses_a_statement(passes):
    with pytest.raises(OperationalError, match="Unknown column"):
        passes(REFUSED)


@pytest.mark.django_db
def test_run_relay_pass_sends_itself_again_when_it_had_a_slot_and_the_database_is_there(passes, sent):
    passes(True, False)

    assert [options["expires"] for options in sent] == [jobs.AGAIN_EXPIRES_SECONDS]


@pytest.mark.django_db
def test_run_relay_pass_waits_for_the_database_that_cut_it_off_and_sends_itself_again(passes, sent, stop, monkeypatch):
    """Beat may be ill at the same moment."""
    answers = [False, False, False, False, False, False, True, True, True]
    monkeypatch.setattr(jobs, "_is_there", lambda: answers.pop(0))

    passes(AWAY, AWAY, True, AWAY)

    assert len(sent) == 4
    assert stop.waits == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0, 0.1]


@pytest.mark.django_db
def test_run_relay_pass_does_not_wait_beside_as_many_as_there_are_slots(passes, sent, stop, monkeypatch):
    """Every tick while the database is away would otherwise occupy a thread of the worker."""

    def run_another():
        jobs.run_relay_pass()
        return True

    monkeypatch.setattr(jobs, "_is_there", run_another)
    passes(AWAY)

    assert len(sent) == 1
    assert stop.waits == [0.1]


def test_a_worker_that_is_ready_sends_the_first_pass_for_each_slot(sent, settings):
    settings.OUTBOX_RELAYS = 3

    jobs._start_relays()

    assert len(sent) == 3
    assert jobs._start_relays in [receiver() for _, receiver in worker_ready.receivers]


@pytest.mark.django_db
def test_run_relay_pass_sends_nothing_when_the_worker_is_told_to_stop(passes, sent):
    jobs._stop_relays()

    passes(True, AWAY)

    assert sent == []


@pytest.mark.django_db
def test_rescan_published_waits_for_the_next_tick_while_the_broker_says_nothing(monkeypatch):
    asked = []

    def run(self, **_options):
        asked.append(self)
        raise TransportUnavailable("away")

    monkeypatch.setattr(jobs.Rescan, "run", run)

    jobs.rescan_published()
    jobs.rescan_published()

    assert len(set(map(id, asked))) == 1
