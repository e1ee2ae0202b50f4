"""kill -9 at every step, and of everything at once, on the embedded parts: they lose nothing either."""

import pytest

from tests.crash_table import CRASHES, assert_same_end
from tests.stack import Stack, wait_until
from tests.stack.fixtures import KIND_PARAMS

# Shorter leases than in production: the same steps, sooner.
QUICK = {"OUTBOX_LEASE_SECONDS": "3", "OUTBOX_DELIVERY_TIMEOUT_SECONDS": "1", "CHAT_RUN_LEASE_SECONDS": "3"}


@pytest.fixture(scope="module", params=[kind for kind in KIND_PARAMS if kind == "embedded"])
def crashing_stack(request, tmp_path_factory):
    with Stack(request.param, tmp_path_factory.mktemp("crash"), settings=QUICK, has_crash_points=True) as stack:
        yield stack


@pytest.fixture
def stack(crashing_stack):
    crashing_stack.ensure_running()
    return crashing_stack


@pytest.mark.parametrize("crash", CRASHES, ids=lambda crash: crash.point)
def test_crash_ends_as_if_nothing_had_happened(stack, crash):
    assert_same_end(stack, crash, rows_move_within=15, run_ends_within=30)


def test_everything_killed_in_the_middle_of_a_stream_loses_nothing(stack):
    alice, bob = stack.invite(), stack.invite()
    done = bob.chat("Said before")

    def kill_once_saved(reply):
        if len(reply.events) == 10:
            wait_until(lambda: stack.books(alice).runs[0]["output_text"], 5, "saved progress")
            stack.kill("web", "worker", "consumer")

    reply = alice.chat("A long story [[tokens=300 delay_ms=100]]", on_event=kill_once_saved)
    assert reply.is_broken
    stack.start("web", "worker", "consumer")

    books = stack.wait_settled(alice, messages=2)
    assert (books.runs[0]["state"], books.runs[0]["error_code"]) == ("failed", "run_interrupted")
    assert reply.text.startswith(books.runs[0]["output_text"])
    assert books.runs[0]["output_text"].startswith("token 1 ")
    alice.chat("Go on", reply.conversation_id).assert_whole()
    stack.wait_settled(alice, messages=4)
    bob.chat("Said after", done.conversation_id).assert_whole()
    stack.wait_settled(bob, messages=4)
