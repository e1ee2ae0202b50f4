"""The checker of chat runs sees each broken promise, and nothing where none was broken."""

from dataclasses import replace

import pytest

from tests.faults.checker import Violation
from tests.faults.plan import Fault
from tests.faults_chat.checker import Call, Change, Chat, End, Entry, Hold, Message, Run, check
from tests.faults_chat.plan import Answer
from tests.faults_chat.reading import DeviceView, Sight
from tests.faults_chat.visitors import Accepted, Visit
from tests.unit.faults_chat.test_reading import chunk, done, error, finish, snapshot

WHOLE = "[[text=echo delay_ms=0]] lecture on 周三."
CUT = "[[text=echo delay_ms=0 cut after=1]] exam."
KILL = (Fault("kill", 0.5, 0.2, "web-a"),)

FINISHED = Run("r1", "c1", 7, "turn", 1, 1, True, "finished", False, WHOLE, WHOLE, "", 1, 40, 5, False)
FAILED = Run("r2", "c1", 7, "turn", 2, 1, True, "failed", False, CUT, CUT[:8], "model_cut", 1, 9, 2, True)


def view(run_id, *events, name="asker"):
    return DeviceView(name, run_id, [Sight("web-a", "", 200, list(events), "closed")])


def views():
    size = len(WHOLE)
    return [
        view("r1", chunk(WHOLE, f"1-{size}"), finish(f"1-{size + 1}"), done(f"1-{size + 2}")),
        view("r2", chunk(CUT[:8], "1-8"), error("1-9"), done("1-10")),
    ]


def visit(**changed):
    answer = Answer(pieces=5, delay_ms=0, first_ms=0)
    accepted = [
        Accepted("r1", "c1", 7, "say", WHOLE, answer),
        Accepted("r2", "c1", 7, "say", CUT, answer),
    ]
    return replace(Visit(accepted=accepted, views=views()), **changed)


GOOD = End(
    visit=visit(),
    runs={"r1": FINISHED, "r2": FAILED},
    timeline=[
        Entry("c1", 1, "user_text", "r1", WHOLE),
        Entry("c1", 2, "assistant_text", "r1", WHOLE),
        Entry("c1", 3, "user_text", "r2", CUT),
        Entry("c1", 4, "assistant_text", "r2", CUT[:8]),
    ],
    messages=[
        Message("c1", "r1:user", "r1", "user", WHOLE, 0),
        Message("c1", "r1:assistant", "r1", "assistant", WHOLE, 43),
        Message("c1", "r2:user", "r2", "user", CUT, 0),
        Message("c1", "r2:assistant", "r2", "assistant", CUT[:8], 9),
    ],
    calls=[
        Call("r1:1:1", 7, "c1", "r1", "answer", 5, 40),
        Call("r1:title", 7, "c1", "r1", "title", 1, 3),
        Call("r2:1:1", 7, "c1", "r2", "answer", 2, 9),
    ],
    holds=[Hold("r1", 7, 500, 40, True), Hold("r2", 7, 500, 9, True), Hold("t1", 7, 3, 3, True)],
    chats={"c1": Chat("c1", 4, 52, 2, 4)},
    users={7: 52},
    windows={7: (52, 0)},
    open_events={},
    changes=[
        Change("r1", "queued", "running", 1, 1, False, False),
        Change("r1", "running", "finished", 1, 1, 1, 0, "vm:17:ab", "17"),
    ],
)


def kinds(end):
    return {violation.kind for violation in check(end)}


def with_run(run, **changed):
    new = replace(run, **changed)
    return {**GOOD.runs, new.id: new}


def with_views(*added, changed=None):
    return visit(views=[*(changed if changed is not None else views()), *added])


def interrupted(seen, *, seconds):
    """A run that was cut off by a kill after it had shown `seen`, the last character `seconds` after the lost ones."""
    kept = seen[:16]
    run = replace(FINISHED, state="failed", error_code="run_interrupted", output_text=kept, is_estimated=True)
    events = [chunk(seen[:16], "1-16", 1.0), chunk(seen[16:20], "1-20", 2.0), chunk(seen[20:], "1-24", 2.0 + seconds)]
    back = [snapshot(kept, "1-16", 9.0), error("1-17", "run_interrupted"), done("1-18")]
    first = DeviceView("asker", "r1", [Sight("web-a", "", 200, events), Sight("web-b", "1-24", 200, back)])
    timeline = [replace(entry, content=kept) if entry.seq == 2 else entry for entry in GOOD.timeline]
    messages = [replace(one, content=kept) if one.event_id == "r1:assistant" else one for one in GOOD.messages]
    return replace(
        GOOD,
        visit=visit(views=[first, views()[1]]),
        runs={**GOOD.runs, "r1": run},
        timeline=timeline,
        messages=messages,
        faults=KILL,
    )


def test_check_finds_nothing_when_every_promise_was_kept():
    assert check(GOOD) == []


def test_check_lets_a_killed_owner_lose_its_last_second_when_redis_was_away():
    assert check(replace(interrupted(WHOLE[:24], seconds=0.9), faults=(*KILL, Fault("restart-redis", 0.1)))) == []


def test_check_sees_what_was_lost_when_redis_had_it():
    assert kinds(interrupted(WHOLE[:24], seconds=0.9)) == {"seen-lost"}


def test_check_sees_what_was_lost_when_it_was_more_than_a_second():
    end = replace(interrupted(WHOLE[:24], seconds=3.0), faults=(*KILL, Fault("restart-redis", 0.1)))
    assert kinds(end) == {"seen-lost"}


def test_check_sees_a_run_that_was_executed_again_after_its_first_word():
    size = len(WHOLE)
    events = [chunk(WHOLE[:8], "1-8", 1.0), chunk(WHOLE[8:16], "1-16", 3.0)]
    again = [snapshot(WHOLE, f"2-{size}", 9.0), finish(f"2-{size + 1}"), done(f"2-{size + 2}")]
    seen = DeviceView("asker", "r1", [Sight("web-a", "", 200, events), Sight("web-b", "1-16", 200, again)])
    end = replace(GOOD, visit=visit(views=[seen, views()[1]]), runs=with_run(FINISHED, attempt=2), faults=KILL)
    assert kinds(end) == {"executed-again"}


def test_check_sees_what_was_lost_when_nothing_happened_to_the_owner():
    end = replace(interrupted(WHOLE[:24], seconds=0.1), faults=(Fault("empty-redis", 0.1),))
    assert kinds(end) == {"seen-lost", "interrupted"}


def test_check_sees_what_a_reader_saw_before_a_snapshot_when_the_model_never_said_it():
    assert "seen-wrong" in kinds(interrupted("x" * 24, seconds=0.1))


@pytest.mark.parametrize(
    ("end", "kind"),
    [
        (replace(GOOD, runs={"r1": FINISHED}), "run-lost"),
        (replace(GOOD, visit=visit(accepted=[Accepted("r1", "c1", 7, "say", "other", None)])), "message-lost"),
        (replace(GOOD, visit=visit(gave_up=["r1 phone"])), "no-end"),
        (replace(GOOD, visit=with_views(DeviceView("p", "r1", [Sight("web-a", "", 404)]))), "run-lost"),
        (replace(GOOD, runs=with_run(FAILED, state="running", is_live=True)), "live"),
        (replace(GOOD, runs=with_run(FAILED, state="finished", output_text=CUT)), "false-success"),
        (replace(GOOD, runs=with_run(FINISHED, state="failed", error_code="run_interrupted")), "interrupted"),
        (replace(GOOD, runs=with_run(FINISHED, state="failed", error_code="model_timeout")), "failed"),
        (replace(GOOD, runs=with_run(FAILED, error_code="internal_error"), faults=KILL), "failed"),
        (replace(GOOD, runs=with_run(FINISHED, output_text=WHOLE + WHOLE)), "text"),
        (replace(GOOD, runs=with_run(FINISHED, output_text=WHOLE[:9] + WHOLE[10:])), "text"),
        (replace(GOOD, runs=with_run(FINISHED, output_text=WHOLE[:9])), "short"),
        (replace(GOOD, visit=with_views(view("r1", chunk(WHOLE + "!", "1-99")))), "seen-wrong"),
        (replace(GOOD, runs=with_run(FAILED, output_text="")), "seen-lost"),
        (replace(GOOD, visit=with_views(view("r1", chunk("abc", "1-4")))), "gap"),
        (replace(GOOD, visit=with_views(view("r2", chunk(CUT[:8], "1-8"), finish("1-9"), done("1-10")))), "told-other"),
        (replace(GOOD, visit=with_views(view("r2", chunk(CUT[:7], "1-7"), error("1-8"), done("1-9")))), "told-other"),
        (replace(GOOD, timeline=GOOD.timeline[1:]), "timeline"),
        (replace(GOOD, timeline=[*GOOD.timeline, Entry("c1", 5, "assistant_text", "r1", WHOLE)]), "timeline"),
        (replace(GOOD, chats={"c1": replace(GOOD.chats["c1"], timeline_seq=5)}), "timeline"),
        (replace(GOOD, runs=with_run(FINISHED, is_current=False)), "variants"),
        (replace(GOOD, runs=with_run(FAILED, turn_no=1)), "variants"),
        (replace(GOOD, messages=GOOD.messages[1:]), "message-lost"),
        (replace(GOOD, messages=[*GOOD.messages[:3]]), "answer-lost"),
        (replace(GOOD, messages=[*GOOD.messages, GOOD.messages[0]]), "message-twice"),
        (replace(GOOD, open_events={"r1:user": "dead"}), "unfinished"),
        (replace(GOOD, chats={"c1": replace(GOOD.chats["c1"], message_count=5)}), "counters"),
        (replace(GOOD, users={7: 53}), "sums"),
        (replace(GOOD, chats={"c1": replace(GOOD.chats["c1"], tokens_total=51)}), "sums"),
        (replace(GOOD, calls=[*GOOD.calls, Call("r2:1:abandoned", 7, "c1", "r2", "answer", 2, 9)]), "charged-twice"),
        (replace(GOOD, calls=GOOD.calls[:2]), "free"),
        (replace(GOOD, calls=[replace(GOOD.calls[0], output_tokens=9), *GOOD.calls[1:]]), "charge"),
        (replace(GOOD, holds=[*GOOD.holds[1:], replace(GOOD.holds[0], is_settled=False, charged=None)]), "hold-left"),
        (replace(GOOD, holds=GOOD.holds[1:]), "settled"),
        (replace(GOOD, holds=[replace(GOOD.holds[0], charged=80), *GOOD.holds[1:]]), "settled"),
        (replace(GOOD, windows={7: (92, 0)}), "window"),
        (replace(GOOD, windows={7: (52, 500)}), "window"),
        (replace(GOOD, changes=[Change("r1", "finished", "running", 1, 2, True, False)]), "backwards"),
        (replace(GOOD, changes=[Change("r1", "failed", "failed", 1, 1, True, True)]), "rewritten"),
        (replace(GOOD, changes=[Change("r1", "running", "running", 1, 1, True, True)]), "cut"),
        (replace(GOOD, changes=[Change("r1", "running", "running", 2, 1, True, False)]), "epoch"),
        (replace(GOOD, changes=[Change("r1", "running", "running", 1, 2, True, False)]), "executed-again"),
        (
            replace(GOOD, changes=[Change("r1", "running", "running", 2, 2, 1, 0, "vm:17:ab", "18", True)]),
            "two-writers",
        ),
        (replace(GOOD, changes=[Change("r1", "running", "finished", 2, 2, 1, 0, "vm:17:ab", "18")]), "two-writers"),
        (replace(GOOD, observed=[Violation("stuck", "…")]), "stuck"),
    ],
)
def test_check_sees_the_broken_promise(end, kind):
    assert kind in kinds(end)
