"""tasks/defaults.py: what a task gets where nobody said."""

from datetime import UTC, datetime, timedelta

import pytest

from tasks.defaults import default_priority, default_threshold, normal_sections

NOW = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)


@pytest.mark.parametrize(("hours", "priority"), [(-5, 1), (0, 1), (48, 1), (48.01, 2), (24 * 30, 2)])
def test_default_priority_follows_the_deadline(hours, priority):
    assert default_priority(deadline_at=NOW + timedelta(hours=hours), now=NOW) == priority


def test_default_priority_is_three_when_there_is_no_deadline():
    assert default_priority(deadline_at=None, now=NOW) == 3


@pytest.mark.parametrize("priority", [1, 3, 4])
def test_default_threshold_is_for_priority_two_only(priority):
    assert default_threshold(priority=priority, deadline_at=NOW) is None


def test_default_threshold_is_a_day_before_the_deadline():
    assert default_threshold(priority=2, deadline_at=NOW) == NOW - timedelta(hours=24)
    assert default_threshold(priority=2, deadline_at=None) is None


@pytest.mark.parametrize(("wanted", "kept"), [(None, 1), (0, 1), (-3, 1), (1, 1), (2, 2), (4, 4), (5, 4), (10**9, 4)])
def test_normal_sections_keeps_within_one_and_four(wanted, kept):
    assert normal_sections(wanted=wanted) == kept
