"""outbox/retry.py: n² seconds, capped, never sooner than promised."""

from datetime import timedelta

import pytest

from outbox.retry import RETRY_POLICY, Failure, Record, RetryPolicy, Verdict

EXACT = RetryPolicy(jitter=0)
YOUNG, OLD = timedelta(seconds=1), RETRY_POLICY.patience


def record(attempts: int, *, tries: int = 0, age: timedelta = YOUNG) -> Record:
    return Record(attempts=attempts, max_attempts=20, tries=tries, age=age)


@pytest.mark.parametrize(("attempt", "seconds"), [(1, 1), (2, 4), (3, 9), (9, 81), (10, 100), (11, 100), (20, 100)])
def test_seconds_is_the_square_of_the_attempt_up_to_its_cap(attempt, seconds):
    assert RetryPolicy(jitter=0).seconds(attempt=attempt) == seconds


def test_seconds_adds_jitter_and_never_takes_away():
    waits = [RETRY_POLICY.seconds(attempt=3) for _ in range(200)]

    assert min(waits) >= 9
    assert max(waits) <= 9 * 1.1
    assert len(set(waits)) > 100


def test_judge_counts_an_attempt_and_buries_after_the_last():
    assert EXACT.judge(Failure.OWN, record(2)) == Verdict(attempts=3, number=3, wait_seconds=9)
    assert EXACT.judge(Failure.OWN, record(19)) == Verdict(attempts=20, number=20, wait_seconds=None)


def test_judge_buries_at_once_when_no_retry_can_help():
    assert EXACT.judge(Failure.PERMANENT, record(0)) == Verdict(attempts=1, number=1, wait_seconds=None)


def test_judge_counts_only_the_first_try_of_what_passes():
    assert EXACT.judge(Failure.PASSING, record(0)) == Verdict(attempts=1, number=1, wait_seconds=1)
    assert EXACT.judge(Failure.PASSING, record(1, tries=1)) == Verdict(attempts=1, number=2, wait_seconds=4)
    assert EXACT.judge(Failure.PASSING, record(19, tries=500)) == Verdict(attempts=19, number=501, wait_seconds=100)


def test_judge_counts_what_passes_like_any_other_once_its_patience_is_over():
    assert EXACT.judge(Failure.PASSING, record(18, tries=500, age=OLD)).attempts == 19
    assert EXACT.judge(Failure.PASSING, record(19, tries=500, age=OLD)).wait_seconds is None
