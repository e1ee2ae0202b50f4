"""The outbox's Celery jobs: a relay's pass sends itself again, and while a part is away one line says so."""

import logging

import pytest
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


@pytest.fixture
def passes(monkeypatch, caplog, sent):
    """Return a function that runs passes with the given endings and returns the lines logged."""
    caplog.set_level(logging.INFO, logger="outbox.jobs")
    monkeypatch.setattr(jobs, "is_away", lambda error: error is AWAY)

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
    passes(True, False, AWAY)

    assert [options["expires"] for options in sent] == [jobs.AGAIN_EXPIRES_SECONDS]


@pytest.mark.django_db
def test_run_relay_pass_sends_nothing_when_the_worker_is_told_to_stop(passes, sent):
    jobs._stop_relays()
    try:
        passes(True)
    finally:
        jobs._stopping.clear()

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
