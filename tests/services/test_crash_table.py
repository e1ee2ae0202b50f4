"""kill -9 at every step on real MariaDB, Redis and Kafka, with the product's own leases: the end is the same."""

import time

import pytest

from tests.crash_table import CRASHES, assert_same_end
from tests.stack import Stack, wait_until
from tests.stack.fixtures import SERVICES, pytest_runtest_makereport

__all__ = ["pytest_runtest_makereport"]
pytestmark = pytest.mark.stack
ROWS_MOVE_WITHIN_SECONDS = 25
RUN_ENDS_WITHIN_SECONDS = 30


@pytest.fixture(scope="module", params=[SERVICES])
def crashing_stack(request, tmp_path_factory):
    with Stack(request.param, tmp_path_factory.mktemp("crash"), has_crash_points=True) as stack:
        yield stack


@pytest.fixture
def stack(crashing_stack):
    crashing_stack.ensure_running()
    return crashing_stack


@pytest.mark.parametrize("crash", CRASHES, ids=lambda crash: crash.point)
def test_crash_ends_as_if_nothing_had_happened(stack, crash):
    assert_same_end(stack, crash, rows_move_within=ROWS_MOVE_WITHIN_SECONDS, run_ends_within=RUN_ENDS_WITHIN_SECONDS)


def test_web_killed_in_the_middle_of_a_stream_keeps_what_was_said(stack):
    alice = stack.invite()

    def kill_once_saved(reply):
        if len(reply.events) == 20:
            wait_until(lambda: stack.books(alice).runs[0]["output_text"], 5, "saved progress")
            stack.kill("web")

    reply = alice.chat("Tell me a long story [[tokens=500 delay_ms=100]]", on_event=kill_once_saved)
    killed_at = time.monotonic()
    assert reply.is_broken
    assert reply.done_count == 0
    stack.start("web")

    run = wait_until(
        lambda: next((run for run in stack.books(alice).runs if run["state"] == "failed"), None), 30, "a failed run"
    )
    assert time.monotonic() - killed_at < 30
    assert run["error_code"] == "run_interrupted"
    assert reply.text.startswith(run["output_text"])
    asked, said = alice.timeline(reply.conversation_id)
    assert asked["content"].startswith("Tell me a long story")
    assert (said["content"], said["payload"]["state"]) == (run["output_text"], "failed")

    alice.chat("Go on", reply.conversation_id).assert_whole()
    assert run["output_text"] in [message["content"] for message in stack.last_body()["messages"]]
    books = stack.wait_settled(alice, messages=4)
    assert books.runs[0]["is_usage_estimated"] == 1
    assert books.runs[0]["total_tokens"] > 0
