"""Hints from writers to relays through a real Redis."""

import threading
import time

import pytest

from outbox import wakeup
from outbox.wakeup import Sender, WakeUps

pytestmark = pytest.mark.services


@pytest.fixture
def deaf(settings):
    """Return a relay's wake-ups for shards 10 to 20 that do not listen yet, on a channel of this test's own."""
    if not settings.REDIS_URL:
        pytest.skip("REDIS_URL is not set")
    settings.OUTBOX_TOPIC_PREFIX = f"test-{time.time_ns()}"
    wakeups = WakeUps(shards=(10, 20), stop=threading.Event(), url=settings.REDIS_URL)
    yield wakeups
    wakeups.close()


@pytest.fixture
def listening(deaf):
    assert deaf._listens()
    return deaf


def rest(wakeups, *, longest: float) -> float:
    started = time.monotonic()
    wakeups.rest(longest_seconds=longest)
    return time.monotonic() - started


def test_a_hint_ends_a_relays_rest_and_one_for_other_shards_does_not(listening):
    sender = Sender()

    sender.wake((3,))
    assert rest(listening, longest=0.3) >= 0.29
    sender.wake((3, 20))
    assert rest(listening, longest=30) < wakeup.LONGEST_REST_SECONDS
    sender.wake(())
    assert rest(listening, longest=30) < wakeup.LONGEST_REST_SECONDS
    assert rest(listening, longest=0.2) >= 0.19  # each hint wakes once


def test_a_relay_looks_once_more_before_its_first_rest_because_hints_went_by_unheard(deaf):
    assert rest(deaf, longest=30) < wakeup.LONGEST_REST_SECONDS / 2

    assert rest(deaf, longest=0.3) >= 0.29
    Sender().wake((10,))
    assert rest(deaf, longest=30) < wakeup.LONGEST_REST_SECONDS


def test_a_relay_looks_by_itself_when_its_connection_is_cut_and_listens_again_soon(listening):
    sender = Sender()
    listening._hints.connection.disconnect()
    listening._hints.connection_pool.disconnect()

    rest(listening, longest=0.1)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        sender.wake((10,))
        if rest(listening, longest=0.5) < 0.4 and listening._hints is not None:
            break

    assert listening._hints is not None
