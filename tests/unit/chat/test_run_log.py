"""The log of a run: what a reader at any position gets, from its owner's process and from another one."""

import json
from datetime import UTC, datetime

import pytest

from chat.contracts import RunSnapshot, RunState
from chat.runs.log import FRAMES_KEPT, MOST_BYTES_AT_ONCE, RunLog
from chat.runs.wire import RunEnd

NOTE = {"kind": "status", "status": {"code": "compacting"}}
FINISHED = RunEnd(state=RunState.FINISHED)


def make_log(attempt=1):
    return RunLog(run_id="r", attempt=attempt, model="worker", created=1)


def snapshot(text="", *, events=(), attempt=1, state=RunState.RUNNING):
    return RunSnapshot(
        run_id="r",
        conversation_id="c",
        user_id=1,
        model="worker",
        attempt=attempt,
        state=state,
        text=text,
        events=events,
        error_code="",
        retry_after_seconds=None,
        created_at=datetime(2026, 11, 1, tzinfo=UTC),
    )


def events_of(frames):
    """The ids and the contents of encoded events; a structured one's is its data."""
    found = []
    for block in frames.decode().split("\n\n")[:-1]:
        event_id, data = block.split("\n")
        chunk = json.loads(data.removeprefix("data: "))
        content = chunk["choices"][0]["delta"].get("content") if "choices" in chunk else chunk["extra"]
        found.append((event_id.removeprefix("id: "), content))
    return found


async def test_each_piece_is_an_event_with_the_position_behind_it():
    log = make_log()
    log.say("Hel")
    log.note(NOTE)
    log.say("lo")

    frames, units = log.frames_after(0)

    assert events_of(frames) == [("1-3", "Hel"), ("1-4", NOTE), ("1-6", "lo")]
    assert units == 6
    assert log.frames_after(6) == (b"", 6)


async def test_reader_within_a_piece_gets_the_rest_of_it():
    log = make_log()
    log.say("Hello")
    log.say(" you")

    assert events_of(log.frames_after(2)[0]) == [("1-5", "llo"), ("1-9", " you")]


async def test_readers_at_the_same_position_share_the_bytes():
    log = make_log()
    log.say("a")
    log.say("b")

    assert log.frames_after(0)[0] is log.frames_after(0)[0]


async def test_long_text_is_given_in_parts_of_bounded_size():
    log = make_log()
    words = [f"token {number} ".ljust(200) for number in range(5 * FRAMES_KEPT)]
    for word in words:
        log.say(word)

    units, text, parts = 0, "", []
    while units < log.shown:
        frames, units = log.frames_after(units)
        parts.append(len(frames))
        text += "".join(content for _id, content in events_of(frames))

    assert text == log.text == "".join(words)
    assert max(parts[1:]) < MOST_BYTES_AT_ONCE + 1000
    assert len(parts) > 2


async def test_gate_decides_what_is_shown():
    log = make_log()
    offered = []
    log.own(attempt=1, gate=offered.append)
    log.say("seen")
    log.show(4)
    log.say(" unseen")

    assert offered == [log, log]
    assert log.text == "seen unseen"
    assert events_of(log.frames_after(0)[0]) == [("1-4", "seen")]
    assert json.loads(log.whole().decode().split("data: ")[1])["choices"][0]["delta"]["content"] == "seen"


async def test_end_shows_all_and_is_told_once():
    log = make_log()
    log.own(attempt=1, gate=lambda _log: None)
    log.say("all")
    log.finish(FINISHED)
    log.finish(RunEnd(state=RunState.FAILED, error_code="internal_error"))

    assert log.shown == 3
    assert log.end_of_run == FINISHED
    last = log.last_frames(language="en").decode()
    assert "id: 1-4\n" in last
    assert last.endswith("id: 1-5\ndata: [DONE]\n\n")
    with pytest.raises(RuntimeError):
        log.say("more")


async def test_change_wakes_everybody_who_waits():
    log = make_log()
    first, second = log.changed(), log.changed()
    log.say("a")

    assert first is second
    assert first.done()
    assert not log.changed().done()


async def test_reader_that_is_cancelled_does_not_stop_the_log():
    log = make_log()
    log.changed().cancel()
    log.say("a")

    assert not log.changed().done()
    assert log.shown == 1


# --- followed from another process ------------------------------------------------------------------------------------


async def test_take_adds_what_is_new_and_refuses_what_does_not_connect():
    log = RunLog.of(snapshot("abc"))

    assert log.take("bcd", attempt=1, end=4)
    assert log.take("cd", attempt=1, end=4)
    assert not log.take("f", attempt=1, end=6)
    assert log.take("ef", attempt=1, end=6)
    assert log.text == "abcdef"


async def test_take_of_the_next_attempt_begins_anew():
    log = RunLog.of(snapshot("abc"))

    assert not log.take("late", attempt=2, end=10)
    assert log.text == "abc"
    assert log.take("new", attempt=2, end=3)
    assert log.take("old", attempt=1, end=6)
    assert (log.attempt, log.text) == (2, "new")


async def test_catch_up_adds_the_rest_and_the_end():
    log = RunLog.of(snapshot("abc"))

    log.catch_up(snapshot("abcdef", events=({"at": 4, "data": NOTE},), state=RunState.STOPPED))

    assert events_of(log.frames_after(3)[0]) == [("1-4", "d"), ("1-5", NOTE), ("1-7", "ef")]
    assert log.end_of_run.state == RunState.STOPPED


async def test_catch_up_with_less_than_is_known_changes_nothing_while_the_run_is_live():
    log = RunLog.of(snapshot("abc"))

    log.catch_up(snapshot("ab"))

    assert log.text == "abc"


async def test_catch_up_with_an_end_before_what_was_shown_is_what_counts():
    log = RunLog.of(snapshot("abc"))

    log.catch_up(snapshot("ab", state=RunState.FAILED))

    assert (log.text, log.shown) == ("ab", 2)


async def test_owned_log_takes_nothing_from_elsewhere():
    log = make_log()
    log.own(attempt=1, gate=None)
    log.say("mine")

    log.catch_up(snapshot("theirs", attempt=2))
    assert log.take("theirs", attempt=2, end=6)
    assert (log.attempt, log.text) == (1, "mine")


async def test_own_begins_anew_where_somebody_else_had_begun():
    log = RunLog.of(snapshot("abc"))

    log.own(attempt=2, gate=None)

    assert (log.attempt, log.text, log.shown) == (2, "", 0)
