"""The outbox's Celery jobs while a part is away: one line per change of state, and they go on by themselves."""

import logging

import pytest
from django.db import OperationalError

from outbox import jobs
from outbox.relay import PassResult

AWAY = OperationalError(2002, "Can't connect")
REFUSED = OperationalError(1054, "Unknown column")


@pytest.fixture
def passes(monkeypatch, caplog):
    """Return a function that runs passes with the given endings and returns the lines logged."""
    caplog.set_level(logging.INFO, logger="outbox.jobs")
    monkeypatch.setattr(jobs, "is_away", lambda error: error is AWAY)

    def run(*endings):
        for ending in endings:

            def run_pass(ending=ending, **_arguments):
                if isinstance(ending, Exception):
                    raise ending
                return ending

            monkeypatch.setattr(jobs.relay, "run_pass", run_pass)
            jobs.run_relay_pass()
        return [record.getMessage() for record in caplog.records]

    return run


@pytest.mark.django_db
def test_run_relay_pass_says_once_that_the_database_went_away_and_came_back(passes):
    lines = passes(PassResult(), AWAY, AWAY, AWAY, PassResult(), PassResult())
    assert lines == [
        "Publishing pauses: the database does not answer",
        "Publishing goes on: the database answers again",
    ]


@pytest.mark.django_db
def test_run_relay_pass_says_once_that_the_broker_went_away_and_came_back(passes):
    down = PassResult(is_transport_down=True)
    lines = passes(down, down, PassResult(), PassResult())
    assert [line.split(":")[0] for line in lines] == ["Publishing pauses", "Publishing goes on"]


@pytest.mark.django_db
def test_run_relay_pass_raises_when_the_database_refuses_a_statement(passes):
    with pytest.raises(OperationalError, match="Unknown column"):
        passes(REFUSED)
