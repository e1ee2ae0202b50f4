"""smartflow/api/token_buckets.py: a burst, a steady rate, all buckets or none."""

import pytest

from smartflow.api.token_buckets import Bucket, LocalBuckets


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def buckets(clock):
    return LocalBuckets(clock=clock)


SMALL = Bucket("small", capacity=3, period_seconds=6)
LARGE = Bucket("large", capacity=100, period_seconds=100)


def test_a_bucket_begins_full_and_then_refuses(buckets):
    taken = [buckets.take([SMALL]) for _ in range(4)]
    assert [one.levels for one in taken] == [(2,), (1,), (0,), (0,)]
    assert [one.wait_seconds for one in taken] == [0, 0, 0, 2]


def test_a_bucket_fills_at_its_rate_and_no_further(buckets, clock):
    for _ in range(3):
        buckets.take([SMALL])
    clock.now += 1.9
    assert buckets.take([SMALL]).wait_seconds == pytest.approx(0.1)
    clock.now += 0.1
    assert buckets.take([SMALL]).wait_seconds == 0
    assert buckets.take([SMALL]).wait_seconds == 2
    clock.now += 1000
    assert buckets.take([SMALL]).levels == (2,)


def test_a_request_takes_from_all_its_buckets_or_from_none(buckets):
    for _ in range(3):
        buckets.take([SMALL, LARGE])
    for _ in range(5):
        refused = buckets.take([SMALL, LARGE])
    assert (refused.wait_seconds, refused.levels) == (2, (0, 97))


def test_local_buckets_are_bounded_and_forget_the_one_used_longest_ago(buckets, monkeypatch):
    monkeypatch.setattr("smartflow.api.token_buckets._MOST_BUCKETS", 10)
    for number in range(11):
        buckets.take([Bucket(f"{number}", 3, 6)])
    assert buckets.take([Bucket("1", 3, 6)]).levels == (1,)
    assert buckets.take([Bucket("0", 3, 6)]).levels == (2,)
