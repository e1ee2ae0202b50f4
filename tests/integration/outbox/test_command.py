"""`manage.py outbox`: the operators' verbs in a terminal, with the same records as in the admin."""

import getpass
import json
from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.db import InterfaceError

from outbox import operator_actions
from outbox.database_clock import database_now
from outbox.holds import paused_types
from outbox.management.commands.outbox import DONE
from outbox.models import OperatorAction, OutboxMessage, PausedType, Status, Worker
from tests.outbox_rows import EVENT_TYPE, append, change, row_of

pytestmark = pytest.mark.django_db
HOUR = timedelta(hours=1)


class Answer:
    """What the command said, and how it ended."""

    def __init__(self, *arguments: str) -> None:
        out, err = StringIO(), StringIO()
        self.code, self.error = 0, ""
        try:
            call_command("outbox", *arguments, stdout=out, stderr=err)
        except CommandError as error:
            self.code, self.error = error.returncode, str(error)
        self.out, self.err = out.getvalue(), err.getvalue()


def run(*arguments: str) -> Answer:
    return Answer(*arguments)


def dead(key: str = "k", **fields) -> int:
    now = database_now()
    pk = append(key, now=now)
    change(pk, **{"status": Status.DEAD, "last_error": "TimeoutError: x", "published_at": now, **fields})
    return pk


def done(verb: str) -> OperatorAction:
    action = OperatorAction.objects.get()
    assert (action.verb, action.state, action.by) == (verb, "done", getpass.getuser())
    return action


@pytest.fixture
def typed(monkeypatch):
    """Return the list of answers that whoever sits there will type."""
    answers: list[str] = []

    def read(_question):
        if not answers:
            raise EOFError
        return answers.pop(0)

    monkeypatch.setattr("builtins.input", read)
    return answers


def test_requeue_moves_what_the_filter_names_and_writes_the_record():
    fitting, other = dead("a"), dead("b", last_error="ValueError: y")
    answer = run("requeue", "--error", "Timeout", "--type", EVENT_TYPE, "--reason", "mended", "--yes")
    assert (answer.code, answer.error) == (0, "")
    assert "1 dead letters fit" in answer.out
    assert "1 dead letters were requeued" in answer.out
    assert (row_of(fitting).status, row_of(other).status) == (Status.PENDING, Status.DEAD)
    action = done("requeue")
    assert (action.reason, action.done_count) == ("mended", 1)
    assert action.selection.items() >= {"error": "Timeout", "event_type": EVENT_TYPE}.items()


def test_discard_gives_up_the_named_rows():
    first, second = dead(), dead()
    assert run("discard", "--id", f"#{first}", "--reason", "old", "--yes").code == 0
    assert (row_of(first).discard_reason, row_of(second).discarded_at) == ("old", None)
    assert done("discard").selection == {"ids": [first]}


@pytest.mark.parametrize("verb", ["requeue", "discard"])
def test_a_dry_run_counts_and_changes_nothing(verb):
    pk = dead()
    answer = run(verb, "--all", "--dry-run")
    assert (answer.code, "1 dead letters fit" in answer.out) == (0, True)
    assert (row_of(pk).status, row_of(pk).discarded_at) == (Status.DEAD, None)
    assert not OperatorAction.objects.exists()


def test_it_warns_where_the_order_of_a_key_would_break():
    dead("a")
    change(append("a"), status=Status.CONSUMED, published_at=database_now(), consumed_at=database_now())
    assert "behind 1 a later event" in run("requeue", "--all", "--dry-run").err
    append("a")
    assert "behind 1 later events of the same key wait" in run("discard", "--all", "--dry-run").err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["requeue", "--all"], "Say why"),
        (["discard", "--all", "--reason", " "], "Say why"),
        (["prune", "--discarded"], "Say why"),
        (["requeue", "--reason", "r"], "Say which rows"),
        (["requeue", "--all", "--key", "a", "--reason", "r"], "Say which rows"),
        (["requeue", "--id", "x", "--reason", "r"], "no row id"),
        (["requeue", "--older-than", "soon", "--reason", "r"], "no length of time"),
        (["pause", "--reason", "r"], EVENT_TYPE),
        (["pause", "no.such.type", "--reason", "r", "--yes"], "There is no such event type"),
        (["pause", "no.such.type", "--dry-run"], "There is no such event type"),
        (["resume", EVENT_TYPE, "--reason", "r", "--yes"], "not paused"),
        (["resume", EVENT_TYPE, "--dry-run"], "not paused"),
        (["requeue", "--older-than", "999999d", "--reason", "r"], "longer than 36500d"),
        (["prune", "--older-than", "999999d"], "longer than 36500d"),
        (["requeue", "--id", "999999999", "--reason", "r", "--yes"], "None of these rows is a dead letter"),
        (["prune", "--older-than", "5m"], "an hour at least"),
    ],
)
def test_wrong_words_are_refused_in_clear_ones_and_change_nothing(arguments, told):
    pk = dead()
    answer = run(*arguments)
    assert answer.code != 0
    assert told in answer.error
    assert row_of(pk).status == Status.DEAD
    assert not OperatorAction.objects.exists()


@pytest.mark.parametrize(("answer", "status"), [("y", Status.PENDING), ("", Status.DEAD), (None, Status.DEAD)])
def test_requeue_asks_first(typed, answer, status):
    pk = dead()
    if answer is not None:
        typed.append(answer)
    ended = run("requeue", "--all", "--reason", "r")
    assert (row_of(pk).status, ended.code == 0) == (status, status == Status.PENDING)
    if answer is None:
        assert "--yes" in ended.error


def test_nothing_to_move_is_no_failure():
    answer = run("requeue", "--all", "--reason", "r")
    assert (answer.code, "0 dead letters fit" in answer.out) == (0, True)


@pytest.mark.usefixtures("short_look")
@pytest.mark.parametrize("verb", ["requeue", "discard"])
def test_rows_that_fit_behind_the_dry_runs_last_look_are_moved_too(verb):
    others = [dead() for _ in range(4)]
    rare = dead(last_error="KeyError: x")
    answer = run(verb, "--error", "KeyError", "--reason", "r", "--yes")
    assert (answer.code, "None of the first 2 dead letters fits" in answer.out) == (0, True)
    assert f"1 dead letters were {DONE[verb]}" in answer.out
    moved = OutboxMessage.objects.exclude(status=Status.DEAD, discarded_at=None)
    assert list(moved.values_list("id", flat=True)) == [rare]
    assert OutboxMessage.objects.filter(id__in=others, status=Status.DEAD, discarded_at=None).count() == 4


@pytest.fixture
def small_steps(monkeypatch):
    monkeypatch.setattr("outbox.selection.SMALL", 1)
    monkeypatch.setattr("outbox.operator_actions.STEP", 2)


@pytest.mark.usefixtures("small_steps")
def test_requeue_of_many_rows_needs_no_worker_and_tells_how_far_it_is():
    for _ in range(5):
        dead()
    answer = run("requeue", "--all", "--reason", "r", "--yes")
    assert "5 of 5" in answer.out
    assert "5 dead letters were requeued" in answer.out
    assert done("requeue").done_count == 5


@pytest.mark.usefixtures("small_steps")
def test_an_interrupted_requeue_stops_and_says_what_was_done(monkeypatch):
    for _ in range(5):
        dead()
    real, calls = operator_actions._move_rows, []

    def move(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(operator_actions, "_move_rows", move)
    answer = run("requeue", "--all", "--reason", "r", "--yes")
    assert (answer.code, "2 dead letters were requeued and stay so" in answer.error) == (130, True)
    assert OperatorAction.objects.get().state == "stopped"
    assert OutboxMessage.objects.filter(status=Status.PENDING).count() == 2


def test_pause_and_resume_change_what_relays_leave_alone():
    assert run("pause", EVENT_TYPE, "--reason", "r", "--dry-run").code == 0
    assert paused_types() == frozenset()
    assert run("pause", EVENT_TYPE, "--reason", "a bad deploy", "--yes").code == 0
    assert (paused_types(), done("pause").reason) == (frozenset({EVENT_TYPE}), "a bad deploy")
    assert run("resume", "--all", "--reason", "mended", "--yes").code == 0
    assert paused_types() == frozenset()


def test_pause_of_several_types_is_all_or_nothing():
    PausedType.objects.create(event_type=EVENT_TYPE, reason="first", by="x", paused_at=database_now())
    assert "paused already" in run("pause", EVENT_TYPE, "--reason", "r", "--yes").error
    assert not OperatorAction.objects.exists()


def consumed(days: int) -> int:
    at = database_now() - timedelta(days=days)
    pk = append(now=at)
    change(pk, status=Status.CONSUMED, published_at=at, consumed_at=at)
    return pk


def test_a_type_that_is_named_twice_is_paused_once():
    assert run("pause", EVENT_TYPE, EVENT_TYPE, "--reason", "r", "--yes").code == 0
    assert paused_types() == frozenset({EVENT_TYPE})


def test_requeue_says_with_its_code_that_a_named_row_was_no_dead_letter():
    pk, other = dead(), append()
    answer = run("requeue", "--id", str(pk), "--id", str(other), "--reason", "r", "--yes")
    assert (answer.code, answer.error) == (1, "1 of the named rows could not be requeued.")
    assert row_of(pk).status == Status.PENDING


@pytest.mark.parametrize("arguments", [["status"], ["requeue", "--all", "--dry-run"]])
def test_a_database_that_is_away_is_told_in_a_sentence(arguments, monkeypatch):
    def ask():
        raise InterfaceError("Can't connect as root:hunter2@db")

    monkeypatch.setattr("outbox.management.commands.outbox.database_now", ask)
    answer = run(*arguments)
    assert (answer.code, answer.error.startswith("The database does not answer: InterfaceError")) == (1, True)


def test_prune_deletes_past_retention_and_writes_the_record():
    consumed(8)
    kept = consumed(1)
    assert "1 consumed rows can go" in run("prune", "--dry-run").out
    assert OutboxMessage.objects.count() == 2
    answer = run("prune", "--yes")
    assert "1 rows were deleted" in answer.out
    assert list(OutboxMessage.objects.values_list("id", flat=True)) == [kept]
    action = done("prune")
    assert (action.done_count, action.selection["status"]) == (1, "consumed")


def test_prune_deletes_discarded_rows_when_told_to_and_never_open_ones():
    old = database_now() - timedelta(days=8)
    still_open = dead(created_at=old)
    dead(created_at=old, discarded_at=old, discard_reason="x")
    answer = run("prune", "--discarded", "--reason", "not needed", "--yes")
    assert (answer.code, "1 rows were deleted" in answer.out) == (0, True)
    assert list(OutboxMessage.objects.values_list("id", flat=True)) == [still_open]
    assert done("prune").reason == "not needed"


def test_status_tells_depth_pauses_workers_and_actions():
    now = database_now()
    append(now=now)
    dead()
    PausedType.objects.create(event_type=EVENT_TYPE, reason="a bad deploy", by="alice", paused_at=now)
    Worker.objects.create(name="relay-0", kind="relay", started_at=now, heartbeat_at=now - HOUR, lease_until=now)
    OperatorAction.objects.create(verb="requeue", reason="r", by="alice", requested_at=now, expected_count=7)

    told = json.loads(run("status", "--json").out)

    assert (told["counts"]["pending"]["count"], told["counts"]["dead"]) == (1, {"count": 1, "is_capped": False})
    assert told["ages"]["oldest_pending_seconds"] >= 0
    assert [(group["event_type"], group["reason"]) for group in told["dead"]] == [(EVENT_TYPE, "TimeoutError")]
    assert [row["event_type"] for row in told["paused"]] == [EVENT_TYPE]
    assert [(row["name"], row["is_live"]) for row in told["workers"]] == [("relay-0", False)]
    assert [(row["verb"], row["state"], row["expected"]) for row in told["actions"]] == [("requeue", "waiting", 7)]
    troubles = {row["name"]: (row["severity"], row["text"]) for row in told["troubles"]}
    assert (told["is_well"], list(troubles)) == (False, ["no_relay", "no_consumer", "dead", "paused"])
    assert troubles["dead"] == ("bad", "1 dead letter waits for a decision.")
    words = run("status").out
    assert words.splitlines()[0] == "bad           No relay is at work: nothing is published."
    for part in ("pending       1", "a bad deploy", "relay-0 is gone", "requeue waiting: 0 of 7"):
        assert part in words


def test_status_says_that_all_is_well():
    now = database_now()
    for kind in ("relay", "consumer"):
        Worker.objects.create(name=kind, kind=kind, started_at=now, heartbeat_at=now, lease_until=now + HOUR)
    told = json.loads(run("status", "--json").out)
    assert (told["is_well"], told["troubles"]) == (True, [])
    assert run("status").out.startswith("All is well.")
