"""The Celery jobs of conversations: what is left for the next tick, and what must be seen."""

import pytest
from django.db import OperationalError

from chat import jobs


@pytest.fixture
def fails_with(monkeypatch):
    """Let the operation fail in the given way."""

    def set_failure(error):
        def end_orphans(**_arguments):
            raise error

        monkeypatch.setattr(jobs, "end_orphans", end_orphans)
        monkeypatch.setattr(jobs, "is_away", lambda seen: seen is error and error.args[0] == 2002)

    return set_failure


@pytest.mark.django_db
def test_end_orphaned_runs_says_nothing_while_the_database_is_away(fails_with, caplog):
    fails_with(OperationalError(2002, "Can't connect"))

    jobs.end_orphaned_runs()

    assert caplog.records == []


@pytest.mark.django_db
def test_end_orphaned_runs_raises_when_the_database_refuses_a_statement(fails_with):
    fails_with(OperationalError(1054, "Unknown column"))

    with pytest.raises(OperationalError, match="Unknown column"):
        jobs.end_orphaned_runs()
