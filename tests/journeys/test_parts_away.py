"""Redis, Kafka or MariaDB does not answer: who talks notices it only where there is no way around it."""

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from tests.stack.fixtures import SERVICES
from tests.stack.processes import ROOT

# The embedded parts are inside the processes: they cannot be away.
pytestmark = pytest.mark.parametrize("shared_stack", [SERVICES], indirect=True)
KAFKA_PAUSE_SECONDS = 30


def services(action, name):
    done = subprocess.run(
        [sys.executable, "scripts/services.py", action, name], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    if "names a server of yours" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr


@contextmanager
def paused(name):
    """Freeze a server that `make services` started; a server of somebody else is none of a test's business."""
    services("pause", name)
    try:
        yield
    finally:
        services("resume", name)


def turn_seconds(person, conversation_id=""):
    reply = person.chat("Hello [[tokens=3]]", conversation_id)
    reply.assert_whole()
    return reply.seconds, reply.conversation_id


@pytest.mark.parametrize("fault", ["cut", "freeze"])
def test_redis_away_costs_speed_and_nothing_else(stack, alice, fault):
    _, conversation_id = turn_seconds(alice)

    getattr(stack.parts.redis, fault)()
    away = [turn_seconds(alice, conversation_id)[0] for _ in range(2)]
    remembered = len(stack.last_body()["messages"])
    bob = stack.invite()
    turn_seconds(bob)
    stack.parts.heal()

    assert max(away) < 4
    assert remembered == 5
    turn_seconds(alice, conversation_id)
    stack.wait_settled(alice, messages=8, within_seconds=30)
    stack.wait_settled(bob, messages=2)


@pytest.mark.alone
def test_kafka_away_for_half_a_minute_delays_counters_only(stack, alice):
    usual, conversation_id = turn_seconds(alice)
    stack.wait_settled(alice, messages=2)

    with paused("kafka"):
        until = time.monotonic() + KAFKA_PAUSE_SECONDS
        away = []
        while time.monotonic() < until:
            away.append(turn_seconds(alice, conversation_id)[0])
            time.sleep(1)
        waiting = stack.books(alice)

    assert max(away) < usual + 1
    assert waiting.states["pending"] >= 2 * len(away)
    books = stack.wait_settled(alice, messages=2 + 2 * len(away), within_seconds=45)
    assert not any(event["retry_count"] for event in books.events)
    assert len(alice.timeline(conversation_id)) == 2 + 2 * len(away)


def test_database_away_is_told_before_the_stream_and_nothing_exists(stack, alice):
    _, conversation_id = turn_seconds(alice)

    stack.parts.database.cut()
    begun = time.monotonic()
    refused = alice.chat("Lost?", conversation_id)
    seconds = time.monotonic() - begun
    listed = alice.call("GET", "/agent/conversation-list")
    ready = alice._http.get("/health/ready")
    stack.parts.heal()

    assert (refused.status, refused.body["status"]) == (503, "50300")
    assert seconds < 6
    assert (listed.status_code, listed.json()["status"]) == (503, "50300")
    assert (ready.status_code, ready.json()["parts"]["database"]["ok"]) == (503, False)
    assert [item["content"] for item in alice.timeline(conversation_id) if item["role"] == "user"] == [
        "Hello [[tokens=3]]"
    ]
    turn_seconds(alice, conversation_id)
    stack.wait_settled(alice, messages=4)


def test_database_that_hangs_is_given_up(stack, alice):
    _, conversation_id = turn_seconds(alice)

    stack.parts.database.freeze()
    begun = time.monotonic()
    refused = alice.chat("Lost?", conversation_id)
    seconds = time.monotonic() - begun
    stack.parts.heal()

    assert (refused.status, refused.body["status"]) == (503, "50300")
    assert seconds < 12
    turn_seconds(alice, conversation_id)
    stack.wait_settled(alice, messages=4)


def test_database_away_in_the_middle_of_a_stream_delays_the_end_only(stack, alice):
    def cut(reply):
        if len(reply.events) == 5:
            stack.parts.database.cut()

    with ThreadPoolExecutor(1) as pool:
        talking = pool.submit(alice.chat, "Tell me [[tokens=40 delay_ms=50]]", on_event=cut)
        time.sleep(4)
        assert not talking.done()
        stack.parts.heal()
        reply = talking.result()

    reply.assert_whole()
    assert alice.timeline(reply.conversation_id)[1]["content"] == reply.text
    stack.wait_settled(alice, messages=2)
