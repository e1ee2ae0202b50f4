"""kill -9 in the middle of a write with a key: its repetition finds the effect done once, or does it."""

import httpx2
import pytest

from tests.stack import Stack, wait_until
from tests.stack.fixtures import KIND_PARAMS

# Shorter leases than in production: the same steps, sooner.
QUICK = {"OUTBOX_LEASE_SECONDS": "3", "OUTBOX_DELIVERY_TIMEOUT_SECONDS": "1", "IDEMPOTENCY_LEASE_SECONDS": "2"}


@pytest.fixture(scope="module", params=KIND_PARAMS)
def stack(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(f"crash-{request.param}")
    with Stack(request.param, folder, settings=QUICK, has_crash_points=True) as stack:
        yield stack


@pytest.mark.parametrize(
    ("point", "is_done"), [("after-key-claim", False), ("before-key-commit", False), ("after-append", True)]
)
def test_a_write_that_died_is_repeated_to_one_effect(stack, point, is_done):
    stack.ensure_running()
    alice = stack.invite()
    task = {"title": f"Survives {point}", "priority_group": 1}

    def create():
        return alice.call("POST", "/task/create", task, **{"X-Idempotency-Key": "the-one"})

    stack.arm(point)
    with pytest.raises(httpx2.TransportError):
        create()
    stack.processes["web"].wait_gone(15)
    stack.start("web")

    answers = []

    def is_answered():
        answers.append(create())
        return answers[-1].status_code != 409

    wait_until(is_answered, 15, "an answer to the repetition")

    *waits, answer = answers
    assert {wait.json()["status"] for wait in waits} <= {"40038"}
    assert all(wait.headers["retry-after"] == "1" for wait in waits)
    assert answer.status_code == 200, answer.text
    assert ("x-idempotency-replayed" in answer.headers) == is_done
    assert create().content == answer.content
    assert [found["title"] for found in alice.data("/task/get")] == [task["title"]]
    rows = stack.parts.rows("SELECT COUNT(*) AS written FROM tasks WHERE title = ?", task["title"])
    assert rows[0]["written"] == 1
