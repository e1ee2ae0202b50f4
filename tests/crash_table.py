"""The crash table: a process dies at a named point in the middle of two conversations; the end is always the same.

Used by tests/services/test_crash_table.py and tests/journeys/test_crash_table.py: one table, two kinds of parts.
"""

import time
from dataclasses import dataclass

from tests.stack import Person, Reply, Stack, wait_until


@dataclass(frozen=True)
class Crash:
    """Who dies, and whether the turn under way is lost to its reader."""

    point: str
    process: str
    is_seen: bool = False


CRASHES = [
    Crash("after-append", "web", is_seen=True),
    Crash("after-answer", "web", is_seen=True),
    Crash("after-claim", "worker"),
    Crash("after-publish", "worker"),
    Crash("before-commit", "consumer"),
    Crash("after-handler", "consumer"),
]


def assert_same_end(stack: Stack, crash: Crash, *, rows_move_within: float, run_ends_within: float) -> None:
    """Talk, let the process die at the point, start it again, talk on: everything is there exactly once."""
    alice = stack.invite()
    first = alice.chat("Before the crash")
    other = alice.chat("Another conversation")
    stack.wait_settled(alice, messages=4)

    stack.arm(crash.point)
    during = alice.chat("During the crash", first.conversation_id)
    assert during.is_broken == crash.is_seen
    stack.processes[crash.process].wait_gone(15)
    died_at = time.monotonic()
    stack.start(crash.process)

    alice.chat("Meanwhile elsewhere", other.conversation_id).assert_whole()
    wait_until(lambda: _has_no_live_run(stack, alice), run_ends_within, "the end of the orphaned run")
    after = alice.chat("After the crash", first.conversation_id)
    after.assert_whole()

    answered = _answered_turns(alice, first.conversation_id)
    books = stack.wait_settled(alice, messages=6 + 2 + answered, within_seconds=rows_move_within)
    assert time.monotonic() - died_at < rows_move_within + run_ends_within
    assert not any(event["retry_count"] for event in books.events)
    _assert_crashed_turn(alice, first.conversation_id, crash, during)


def _has_no_live_run(stack: Stack, person: Person) -> bool:
    return not any(run["is_live"] for run in stack.books(person).runs)


def _answered_turns(person: Person, conversation_id: str) -> int:
    """Return how many of the last two turns have an answer: a run that died before its first word has none."""
    turns = [item for item in person.timeline(conversation_id) if item["role"] == "assistant"][1:]
    return sum(bool(turn["content"]) for turn in turns)


def _assert_crashed_turn(person: Person, conversation_id: str, crash: Crash, during: Reply) -> None:
    items = person.timeline(conversation_id)
    assert [item["content"] for item in items if item["role"] == "user"] == [
        "Before the crash",
        "During the crash",
        "After the crash",
    ]
    crashed = [item for item in items if item["role"] == "assistant"][1]
    # a run that died before its first word was executed again
    assert crashed["payload"]["state"] == "finished"
    assert crashed["content"].startswith("token 1 ")
    if not crash.is_seen:
        during.assert_whole()
