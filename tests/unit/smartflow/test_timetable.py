"""smartflow/timetable.py: what is due does not depend on a wall clock that somebody sets."""

import pickle
from datetime import datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest

from smartflow.celery import Daily, app
from smartflow.kernel import clock
from smartflow.timetable import TIMETABLE


@pytest.mark.parametrize("job", TIMETABLE)
def test_a_job_is_due_after_its_period_when_the_wall_clock_is_set_back(job, monkeypatch):
    schedule = app.conf.beat_schedule[job]["schedule"]
    last_run = clock.steady_now() - schedule.run_every
    real = clock.utc_now
    monkeypatch.setattr(clock, "utc_now", lambda: real() - timedelta(minutes=5))

    assert schedule.is_due(last_run).is_due


@pytest.fixture
def at_half_past_three(settings):
    settings.TIME_ZONE = "Europe/Berlin"
    return Daily(time(3, 30))


@pytest.mark.parametrize(
    ("last_run", "now", "is_due"),
    [
        ("2026-06-01T12:00", "2026-06-02T03:29", False),
        ("2026-06-01T12:00", "2026-06-02T03:30", True),
        ("2026-06-02T03:30", "2026-06-02T23:00", False),
        ("2026-06-02T01:00", "2026-06-02T03:30", True),
        ("2026-06-01T03:30", "2026-06-09T12:00", True),  # beat was away
        ("2026-03-28T03:30", "2026-03-29T03:30", True),  # a day of 23 hours
        ("2026-10-24T03:30", "2026-10-25T03:29", False),  # a day of 25 hours
        ("2026-10-24T03:30", "2026-10-25T03:30", True),
    ],
)
def test_a_nightly_job_is_due_at_its_time_of_the_installations_zone(at_half_past_three, last_run, now, is_due):
    zone = ZoneInfo("Europe/Berlin")
    at_half_past_three.nowfun = lambda: datetime.fromisoformat(now).replace(tzinfo=zone)

    assert at_half_past_three.is_due(datetime.fromisoformat(last_run).replace(tzinfo=zone)).is_due == is_due


def test_a_nightly_job_survives_beats_store(at_half_past_three):
    assert pickle.loads(pickle.dumps(at_half_past_three)) == at_half_past_three != Daily(time(4, 0))


def test_steady_now_goes_on_with_the_wall_clock_and_never_back():
    first = clock.steady_now()
    assert abs(first - clock.utc_now()) < timedelta(seconds=5)
    assert clock.steady_now() >= first
