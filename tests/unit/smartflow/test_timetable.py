"""smartflow/timetable.py: what is due does not depend on a wall clock that somebody sets."""

from datetime import timedelta

import pytest

from smartflow.celery import app
from smartflow.kernel import clock
from smartflow.timetable import TIMETABLE


@pytest.mark.parametrize("job", TIMETABLE)
def test_a_job_is_due_after_its_period_when_the_wall_clock_is_set_back(job, monkeypatch):
    schedule = app.conf.beat_schedule[job]["schedule"]
    last_run = clock.steady_now() - schedule.run_every
    real = clock.utc_now
    monkeypatch.setattr(clock, "utc_now", lambda: real() - timedelta(minutes=5))

    assert schedule.is_due(last_run).is_due


def test_steady_now_goes_on_with_the_wall_clock_and_never_back():
    first = clock.steady_now()
    assert abs(first - clock.utc_now()) < timedelta(seconds=5)
    assert clock.steady_now() >= first
