"""Runs in processes of their own: killed with -9 and asked to end, in the middle of answers."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.stack import Stack, wait_until
from tests.stack.fixtures import JOURNEY_SETTINGS, KIND_PARAMS
from tests.stack.processes import Process

LEASE_SECONDS = 3
SETTINGS = {
    **JOURNEY_SETTINGS,
    "CHAT_EXECUTORS": "separate",
    "CHAT_RUN_LEASE_SECONDS": str(LEASE_SECONDS),
    "CHAT_DRAIN_SECONDS": "8",
    "CHAT_CONTEXT_BUDGET_TOKENS": "10000",
}
EXECUTORS = ("executor-1", "executor-2")
SLOW_TO_BEGIN = "Think first [[first_ms=4000 tokens=5]]"
LONG = "A long story [[tokens=400 delay_ms=50]]"
# What the issue promises of a run whose owner has died.
MOST_SECONDS = 30


@pytest.fixture(scope="module", params=KIND_PARAMS)
def executors_stack(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(f"executors-{request.param}")
    with Stack(request.param, folder, settings=SETTINGS) as stack:
        for name in EXECUTORS:
            arguments = ["manage.py", "run_executor"]
            stack.processes[name] = Process(name, arguments, stack._environment(), folder / f"{name}.log")
        yield stack


@pytest.fixture
def stack(executors_stack):
    """The stack with both executors running."""
    executors_stack.ensure_running()
    for name in EXECUTORS:
        process = executors_stack.processes[name]
        process.start()
        wait_until(lambda process=process: "Executing runs." in process.log_since_start(), 30, f"a ready {name}")
    return executors_stack


def run_of(stack, person):
    """The user's only run, once there is one."""
    rows = wait_until(lambda: stack.rows("SELECT * FROM chat_runs WHERE user_id = ?", person.user_id), 10, "a run")
    assert len(rows) == 1
    return rows[0]


def owner_of(stack, person):
    """The process that executes the user's run, once one does."""
    owner = wait_until(lambda: run_of(stack, person)["owner"], 10, "an owner")
    pid = int(owner.split(":")[-2])
    return next(stack.processes[name] for name in EXECUTORS if stack.processes[name].pid == pid)


def wait_for_question(stack, count):
    wait_until(lambda: len(stack.model.seen()["bodies"]) > count, 10, "a question to the model")


def test_turn_is_executed_by_a_process_of_its_own(stack, alice):
    reply = alice.chat("Hello [[tokens=20]]")

    reply.assert_whole()
    assert reply.text == "".join(f"token {number} " for number in range(1, 21))
    assert owner_of(stack, alice).is_running
    stack.wait_settled(alice, messages=2)


def test_executor_killed_before_the_first_token_is_replaced(stack, alice):
    asked = len(stack.model.seen()["bodies"])
    with ThreadPoolExecutor() as pool:
        reading = pool.submit(alice.chat, SLOW_TO_BEGIN)
        dead = owner_of(stack, alice)
        wait_for_question(stack, asked)
        dead.kill()
        reply = reading.result()

    reply.assert_whole()
    run = run_of(stack, alice)
    assert (run["state"], run["attempt"], run["output_text"]) == ("finished", 2, reply.text)
    assert owner_of(stack, alice) is not dead
    assert reply.seconds < MOST_SECONDS
    stack.wait_settled(alice, messages=2)


def test_executor_killed_while_a_summary_is_written_leaves_a_bill_that_is_paid_once(stack, alice):
    """The first turn is longer than the budget, and as slow when it is summarised as when it was said."""
    first = alice.chat("[[first_ms=2500 tokens=5]] " + "A long story. " * 4500)
    with ThreadPoolExecutor() as pool:
        reading = pool.submit(alice.chat, "And now? [[tokens=5]]", first.conversation_id)
        wait_until(lambda: "You condense" in json.dumps(stack.model.seen()["bodies"]), 10, "the request for a summary")
        (run,) = stack.rows("SELECT * FROM chat_runs WHERE user_id = ? AND is_live = 1", alice.user_id)
        pid = int(run["owner"].split(":")[-2])
        next(stack.processes[name] for name in EXECUTORS if stack.processes[name].pid == pid).kill()
        reply = reading.result()

    reply.assert_whole()
    assert run["prompt_tokens"] > 100  # before the model has said a word
    stack.wait_settled(alice, messages=4)
    entries = stack.rows("SELECT * FROM token_ledger WHERE run_id = ? ORDER BY entry_key", run["id"])
    lost = {entry["purpose"]: (entry["total_tokens"], bool(entry["is_estimated"])) for entry in entries}["chat"]
    assert lost == (run["prompt_tokens"], True)
    assert sorted(entry["purpose"] for entry in entries) == ["answer", "chat", "summary"]
    stack.manage("check_ledger")


def test_executor_killed_after_the_first_token_leaves_an_answer_to_continue(stack, alice):
    killed = []

    def kill(reply):
        if len(reply.events) == 10 and not killed:
            killed.append(owner_of(stack, alice))
            killed[0].kill()

    reply = alice.chat(LONG, on_event=kill)

    assert reply.error["code"] == "run_interrupted"
    assert reply.done_count == 1
    run = run_of(stack, alice)
    assert (run["state"], run["error_code"], run["attempt"]) == ("failed", "run_interrupted", 1)
    # what its reader saw is what is stored, save for what the executor said in its last second
    assert reply.snapshots or run["output_text"] == reply.text
    assert run["output_text"].startswith("token 1 token 2 ")
    assert run["total_tokens"] > 0
    assert reply.seconds < MOST_SECONDS

    going_on = alice.ask_again(run["id"], "continue")
    going_on.assert_whole()
    stack.wait_settled(alice, messages=3)


def test_executor_asked_to_end_hands_over_what_is_silent_and_ends_what_speaks(stack, alice, bob):
    asked = len(stack.model.seen()["bodies"])
    with ThreadPoolExecutor() as pool:
        silent = pool.submit(alice.chat, "Wait [[first_ms=2500 tokens=5]]")
        ending = owner_of(stack, alice)
        wait_for_question(stack, asked)
        spoken = talk_to(ending, stack, bob, pool)
        ending.ask_to_end()
        wait_until(lambda: owner_of(stack, alice) is not ending, 5, "another owner of the silent run")
        replies = [silent.result(), spoken.result()]

    for reply in replies:
        reply.assert_whole()
    assert run_of(stack, alice)["attempt"] == 1
    ending.wait_gone(15)


def talk_to(process, stack, person, pool):
    """Have a run under way, after its first token, in this very process: new conversations until one lands there."""
    for _ in range(30):
        stack.rows("SELECT 1")
        reading = pool.submit(person.chat, "Talk [[tokens=60 delay_ms=50]]")
        row = wait_until(lambda: _live_and_owned(stack, person), 10, "an owned run")
        if int(row["owner"].split(":")[-2]) == process.pid:
            wait_until(lambda: _live_and_owned(stack, person)["has_spoken"], 10, "a first token")
            return reading
        person.stop(row["id"])
        reading.result()
    raise AssertionError("no run landed in the process")


def _live_and_owned(stack, person):
    rows = stack.rows("SELECT * FROM chat_runs WHERE user_id = ? AND is_live", person.user_id)
    return rows[0] if rows and rows[0]["owner"] else None


def test_second_signal_ends_an_executor_at_once(stack, alice):
    with ThreadPoolExecutor() as pool:
        reading = pool.submit(alice.chat, LONG)
        process = owner_of(stack, alice)
        wait_until(lambda: run_of(stack, alice)["has_spoken"], 10, "a first token")
        process.ask_to_end()
        wait_until(lambda: "Ending:" in process.log_since_start(), 5, "the first signal's effect")
        assert process.is_running
        process.ask_to_end()
        process.wait_gone(5)
        reply = reading.result()

    reply.assert_failed("run_interrupted")
    assert run_of(stack, alice)["output_text"] == reply.text


def test_grace_ends_and_the_prefix_is_kept(stack, alice):
    reply = None
    with ThreadPoolExecutor() as pool:
        reading = pool.submit(alice.chat, LONG)
        process = owner_of(stack, alice)
        wait_until(lambda: run_of(stack, alice)["has_spoken"], 10, "a first token")
        process.ask_to_end()
        reply = reading.result()
        process.wait_gone(10)

    reply.assert_failed("run_interrupted")
    assert run_of(stack, alice)["output_text"] == reply.text
    # it spoke on through the whole grace
    assert "token 100 " in reply.text


def test_turn_accepted_while_no_executor_runs_waits_for_one(stack, alice):
    stack.stop(*EXECUTORS)
    with ThreadPoolExecutor() as pool:
        reading = pool.submit(alice.chat, "Anybody there? [[tokens=5]]")
        run_of(stack, alice)
        stack.processes["executor-1"].start()
        reply = reading.result()

    reply.assert_whole()
    assert run_of(stack, alice)["attempt"] == 1
