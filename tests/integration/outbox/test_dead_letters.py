"""outbox/dead_letters.py: operators send parked rows round again, or give them up, and say why."""

from datetime import timedelta

import pytest

from outbox import dead_letters
from outbox.dead_letters import discard_dead_letters, requeue_dead_letters
from outbox.dispatch import Outcome
from outbox.holds import release_held_rows
from outbox.models import OperatorAction, Status
from outbox.operator_actions import ReasonMissing, run_actions
from outbox.selection import Selection
from outbox.testing import drain
from tests.outbox_rows import NOW, append, change, row_of

pytestmark = pytest.mark.django_db
LATER = NOW + timedelta(hours=1)


def dead(key: str = "k", **fields) -> int:
    pk = append(key)
    change(
        pk, **{"status": Status.DEAD, "retry_count": 20, "last_error": "RuntimeError: x", "published_at": NOW, **fields}
    )
    return pk


def requeue(*ids: int, reason: str = "fixed") -> int:
    return requeue_dead_letters(ids=ids, by="alice", reason=reason, now=LATER)


def discard(*ids: int, reason: str = "obsolete") -> int:
    return discard_dead_letters(ids=ids, by="alice", reason=reason, now=LATER)


def test_requeue_dead_letters_sends_the_row_round_again_with_all_its_attempts(handler):
    pk = dead()

    assert requeue(pk) == 1
    row = row_of(pk)
    assert (row.status, row.retry_count, row.next_retry_at) == (Status.PENDING, 0, None)
    assert drain(now=LATER) == {Outcome.CONSUMED: 1}
    assert row_of(pk).status == Status.CONSUMED


@pytest.mark.parametrize("small", [0, 500], ids=["in the background", "at once"])
def test_requeue_wakes_the_relays_once_its_rows_are_there(
    small, monkeypatch, nudges, django_capture_on_commit_callbacks
):
    monkeypatch.setattr("outbox.selection.SMALL", small)
    dead()
    with django_capture_on_commit_callbacks() as waiting:
        dead_letters.requeue(selection=Selection(), by="alice", reason="fixed", now=LATER)
        run_actions(clock=lambda: LATER, seconds=30)
    assert nudges == []
    for wake in waiting:
        wake()
    assert nudges == [()]


def test_a_discard_and_a_requeue_of_nothing_wake_nobody(nudges, django_capture_on_commit_callbacks):
    pk, pending = dead(), append()
    with django_capture_on_commit_callbacks(execute=True):
        assert (discard(pk), requeue(pending)) == (1, 0)
    assert nudges == []


def test_requeue_dead_letters_takes_a_discard_back():
    pk = dead()
    discard(pk)

    assert requeue(pk) == 1
    assert (row_of(pk).discarded_at, row_of(pk).discard_reason) == (None, "")


@pytest.mark.parametrize("status", [Status.PENDING, Status.PUBLISHED, Status.CONSUMED])
def test_requeue_and_discard_leave_a_row_that_is_not_dead(status):
    pk = append()
    change(pk, status=status, retry_count=3, published_at=NOW, consumed_at=NOW)

    assert (requeue(pk), discard(pk)) == (0, 0)
    assert (row_of(pk).status, row_of(pk).retry_count, row_of(pk).discarded_at) == (status, 3, None)


def test_requeue_dead_letters_moves_nothing_the_second_time():
    pk = dead()

    assert [requeue(pk), requeue(pk)] == [1, 0]


def test_requeue_dead_letters_keeps_the_order_of_a_key(handler):
    first, second = dead("a"), dead("a")

    requeue(second, first)
    drain(now=LATER)

    assert handler.event_ids == [row_of(first).event_id, row_of(second).event_id]


def test_discard_dead_letters_marks_the_row_and_keeps_it_dead():
    pk = dead()

    assert discard(pk, reason="x" * 300) == 1
    row = row_of(pk)
    assert (row.status, row.discarded_at, row.discard_reason) == (Status.DEAD, LATER, "x" * 255)


def test_discard_dead_letters_keeps_the_first_reason():
    pk = dead()

    assert [discard(pk, reason="first"), discard(pk, reason="second")] == [1, 0]
    assert row_of(pk).discard_reason == "first"


@pytest.mark.parametrize("call", [requeue, discard])
@pytest.mark.parametrize("reason", ["", "  \n"])
def test_requeue_and_discard_refuse_without_a_reason(call, reason):
    pk = dead()

    with pytest.raises(ReasonMissing):
        call(pk, reason=reason)
    assert (row_of(pk).status, row_of(pk).discarded_at) == (Status.DEAD, None)
    assert not OperatorAction.objects.exists()


def test_requeue_and_discard_write_who_when_why_and_how_many(alice):
    gone, other = dead("a"), append("b")

    action = dead_letters.discard(
        selection=Selection(ids=(gone, other)), by="alice", user_id=alice.pk, reason=" obsolete ", now=LATER
    )
    kept = OperatorAction.objects.get()
    assert kept == action
    assert (kept.verb, kept.state, kept.by, kept.user, kept.reason) == ("discard", "done", "alice", alice, "obsolete")
    assert (kept.requested_at, kept.finished_at, kept.expected_count, kept.done_count) == (LATER, LATER, 2, 1)
    assert kept.selection == {"ids": [gone, other]}


def test_requeue_by_filter_moves_what_fits_every_part_of_it():
    fitting = dead("a", last_error="TimeoutError: slow")
    others = [dead("a", last_error="ValueError: x"), dead("b", last_error="TimeoutError: slow")]
    discarded = dead("a", last_error="TimeoutError: slow", discarded_at=NOW)

    action = dead_letters.requeue(selection=Selection(key="a", error="Timeout"), by="alice", reason="r", now=LATER)

    assert action.done_count == 1
    assert [row_of(pk).status for pk in (fitting, *others, discarded)] == ["pending", "dead", "dead", "dead"]


def test_requeue_by_filter_takes_discards_back_only_when_asked():
    still_open, discarded = dead("a"), dead("b", discarded_at=NOW, discard_reason="x")

    action = dead_letters.requeue(selection=Selection(is_discarded=True), by="alice", reason="r", now=LATER)

    assert action.done_count == 1
    assert (row_of(still_open).status, row_of(discarded).status) == (Status.DEAD, Status.PENDING)


def test_requeue_releases_what_waited_behind_the_row_in_order(handler):
    head = dead("a")
    followers = [append("a"), append("a")]
    drain(now=NOW)
    assert handler.event_ids == []

    requeue(head)
    release_held_rows(now=LATER)
    drain(now=LATER)

    assert handler.event_ids == [row_of(pk).event_id for pk in (head, *followers)]


def test_discard_lets_what_waited_behind_the_row_go_on_without_it(handler):
    head, follower = dead("a"), append("a")
    drain(now=NOW)

    discard(head)
    release_held_rows(now=LATER)
    drain(now=LATER)

    assert handler.event_ids == [row_of(follower).event_id]
    assert row_of(head).status == Status.DEAD
