"""outbox/breaker.py: opens at a failure, asks again after 1, 2, 4 and then every 5 seconds, closes at an answer.

A topic is tried again after 1, 2, 4, 8 and then every 15 seconds."""

import pytest

from outbox.breaker import Breaker, TopicBreakers


class Seconds:
    now = 50.0

    def __call__(self):
        return self.now


@pytest.fixture
def seconds():
    return Seconds()


def test_a_breaker_is_closed_until_a_failure_and_tells_each_change_once(seconds):
    breaker = Breaker(monotonic=seconds, spread=lambda: 0.0)
    assert (breaker.is_open, breaker.seconds_to_probe(), breaker.note_success()) == (False, 0.0, False)

    assert [breaker.note_failure() for _ in range(3)] == [True, False, False]
    assert breaker.is_open
    assert [breaker.note_success() for _ in range(2)] == [True, False]
    assert (breaker.is_open, breaker.seconds_to_probe()) == (False, 0.0)


def test_a_breaker_waits_longer_after_each_failure_until_something_is_published(seconds):
    breaker = Breaker(monotonic=seconds, spread=lambda: 0.0)
    waits = []
    for _ in range(5):
        assert breaker.note_failure()
        waits.append(breaker.seconds_to_probe())
        assert breaker.note_answer()  # a probe alone: what is published may fail as before
        assert (breaker.is_open, breaker.seconds_to_probe(), breaker.note_answer()) == (False, 0.0, False)
    assert waits == [1.0, 2.0, 4.0, 5.0, 5.0]

    breaker.note_failure()
    seconds.now += 5
    assert breaker.seconds_to_probe() == 0.0
    breaker.note_success()
    breaker.note_failure()
    assert breaker.seconds_to_probe() == 1.0


def test_topics_wait_by_themselves_and_longer_each_time_until_one_is_published(seconds):
    topics = TopicBreakers(monotonic=seconds, spread=lambda: 0.0)
    waits = []
    for number in range(6):
        assert topics.note_failure("bad") == (number == 0)
        assert topics.note_success({"good"}) == []
        waits.append(topics.waits())
        seconds.now += waits[-1]["bad"]
        assert topics.waits() == {}
    assert [each["bad"] for each in waits] == [1.0, 2.0, 4.0, 8.0, 15.0, 15.0]

    assert [topics.note_success({"good", "bad"}) for _ in range(2)] == [["bad"], []]
    assert topics.note_failure("bad")
    assert topics.waits() == {"bad": 1.0}


def test_a_breaker_spreads_its_probes(seconds):
    breaker = Breaker(monotonic=seconds, spread=lambda: 1.0)
    breaker.note_failure()

    assert breaker.seconds_to_probe() == pytest.approx(1.2)
