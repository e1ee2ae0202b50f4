"""outbox/retry.py: n² seconds, capped, never sooner than promised."""

import pytest

from outbox.retry import RETRY_POLICY, RetryPolicy


@pytest.mark.parametrize(("attempt", "seconds"), [(1, 1), (2, 4), (3, 9), (9, 81), (10, 100), (11, 100), (20, 100)])
def test_seconds_is_the_square_of_the_attempt_up_to_its_cap(attempt, seconds):
    assert RetryPolicy(jitter=0).seconds(attempt=attempt) == seconds


def test_seconds_adds_jitter_and_never_takes_away():
    waits = [RETRY_POLICY.seconds(attempt=3) for _ in range(200)]

    assert min(waits) >= 9
    assert max(waits) <= 9 * 1.1
    assert len(set(waits)) > 100
