"""tasks/urgency.py: who becomes urgent by itself, and when."""

from datetime import UTC, datetime, timedelta

import pytest

from tasks.urgency import effective_priority, is_due

NOW = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)
PASSED = NOW - timedelta(microseconds=1)


@pytest.mark.parametrize(("stored", "shown"), [(1, 1), (2, 1), (3, 3), (4, 3)])
def test_effective_priority_moves_two_and_four_past_the_threshold(stored, shown):
    seen = effective_priority(priority=stored, is_completed=False, urgency_threshold_at=PASSED, now=NOW)

    assert seen == shown


@pytest.mark.parametrize("priority", [1, 2, 3, 4])
@pytest.mark.parametrize(
    ("is_completed", "threshold"), [(True, PASSED), (False, None), (False, NOW + timedelta(microseconds=1))]
)
def test_effective_priority_leaves_what_is_done_or_not_due(priority, is_completed, threshold):
    values = {"priority": priority, "is_completed": is_completed, "urgency_threshold_at": threshold, "now": NOW}

    assert effective_priority(**values) == priority
    assert not is_due(**values)


def test_is_due_counts_the_moment_of_the_threshold_itself():
    assert is_due(priority=2, is_completed=False, urgency_threshold_at=NOW, now=NOW)
