"""outbox/operator_actions.py: many rows are moved in the background, in batches, and nothing is done twice."""

from datetime import timedelta
from unittest.mock import Mock

import pytest
from django.db import OperationalError

from outbox import dead_letters, jobs, operator_actions
from outbox.models import OperatorAction, OutboxMessage, Status
from outbox.operator_actions import LEASE_SECONDS, ActionOver, request_stop, run_actions, work_on
from outbox.selection import Selection, look_at_dead_letters
from smartflow.timetable import TIMETABLE
from tests.outbox_rows import EVENT_TYPE, NOW, SteppedClock, new_row

pytestmark = pytest.mark.django_db
LATER = NOW + timedelta(hours=1)


@pytest.fixture(autouse=True)
def small_steps(monkeypatch):
    """Make twelve rows many."""
    monkeypatch.setattr("outbox.selection.SMALL", 3)
    monkeypatch.setattr("outbox.operator_actions.STEP", 5)


@pytest.fixture
def clock():
    return SteppedClock(LATER)


def make_dead(count: int, **fields) -> None:
    OutboxMessage.objects.bulk_create(
        new_row(
            event_id=f"e{number}-{fields.get('biz_type', '')}",
            message_key=f"k{number}",
            topic="t",
            payload="{}",
            status=Status.DEAD,
            **{"biz_type": EVENT_TYPE, "created_at": NOW, "updated_at": NOW, **fields},
        )
        for number in range(count)
    )


def requeue_all(**filters) -> OperatorAction:
    return dead_letters.requeue(selection=Selection(**filters), by="alice", reason="mended", now=LATER)


def count(status: str) -> int:
    return OutboxMessage.objects.filter(status=status).count()


class KilledError(BaseException):
    """Ends the worker in the middle, as a kill would: nothing behind it runs."""


def kill_in_batch(monkeypatch, number: int) -> None:
    """Let the worker die at the end of a batch, before its transaction commits."""
    real, seen = operator_actions._move_rows, []

    def move(*arguments):
        seen.append(real(*arguments))
        if len(seen) == number:
            raise KilledError
        return seen[-1]

    monkeypatch.setattr(operator_actions, "_move_rows", move)


def test_requeue_leaves_many_rows_to_the_background_and_binds_them_to_now(clock):
    make_dead(12)
    action = requeue_all()
    assert (action.state, action.done_count, count(Status.DEAD)) == ("waiting", 0, 12)
    make_dead(1, biz_type="other", updated_at=LATER + timedelta(seconds=1))

    assert run_actions(clock=clock, seconds=30) == 1

    action.refresh_from_db()
    assert (action.state, action.expected_count, action.done_count) == ("done", 12, 12)
    assert (action.finished_at, action.lease_until) == (LATER, None)
    assert (count(Status.PENDING), count(Status.DEAD)) == (12, 1)


def test_discard_in_the_background_keeps_the_reason_and_passes_over_what_does_not_fit(clock):
    make_dead(8, last_error="TimeoutError: x")
    make_dead(8, biz_type="other", last_error="TimeoutError: x")
    action = dead_letters.discard(selection=Selection(event_type="other"), by="alice", reason="old", now=LATER)

    run_actions(clock=clock, seconds=30)

    action.refresh_from_db()
    assert (action.state, action.done_count) == ("done", 8)
    assert set(OutboxMessage.objects.exclude(discarded_at=None).values_list("biz_type", "discard_reason")) == {
        ("other", "old")
    }


def test_run_actions_goes_on_behind_the_last_batch_when_the_worker_was_killed(clock, monkeypatch):
    make_dead(12)
    action = requeue_all()
    with monkeypatch.context() as patched:
        kill_in_batch(patched, 2)
        with pytest.raises(KilledError):
            run_actions(clock=clock, seconds=30)
    action.refresh_from_db()
    assert (action.state, action.done_count, count(Status.PENDING)) == ("running", 5, 5)

    assert run_actions(clock=clock, seconds=30) == 0
    clock.advance(LEASE_SECONDS)
    assert run_actions(clock=clock, seconds=30) == 1

    action.refresh_from_db()
    assert (action.state, action.expected_count, action.done_count, count(Status.PENDING)) == ("done", 12, 12, 12)


def test_a_killed_workers_action_is_taken_over_within_fifteen_seconds():
    assert LEASE_SECONDS + TIMETABLE["operators"]["schedule"] <= 15


def test_run_actions_requeues_no_row_twice_that_died_again_meanwhile(clock, monkeypatch):
    make_dead(12)
    action = requeue_all()
    real = operator_actions._move_rows

    def move_and_die_again(*arguments):
        moved = real(*arguments)
        OutboxMessage.objects.filter(status=Status.PENDING).update(
            status=Status.DEAD, ready_shard=None, updated_at=LATER + timedelta(seconds=1)
        )
        return moved

    monkeypatch.setattr(operator_actions, "_move_rows", move_and_die_again)
    run_actions(clock=clock, seconds=30)

    action.refresh_from_db()
    assert (action.state, action.done_count, count(Status.DEAD)) == ("done", 12, 12)


def test_work_on_leaves_an_action_to_the_worker_that_has_it(clock):
    make_dead(12)
    action = requeue_all()
    OperatorAction.objects.filter(pk=action.pk).update(state="running", lease_until=LATER + timedelta(seconds=1))

    assert work_on(action_id=action.pk, clock=clock, seconds=30).done_count == 0
    assert count(Status.PENDING) == 0


def test_work_on_gives_the_action_back_when_the_time_is_over(clock):
    make_dead(12)
    action = requeue_all()

    assert work_on(action_id=action.pk, clock=clock, seconds=0).lease_until is None
    assert run_actions(clock=clock, seconds=30) == 1


def test_run_actions_ends_behind_the_batch_when_the_worker_is_stopping(clock):
    make_dead(12)
    action = requeue_all()
    asked: list[int] = []

    def is_stopping() -> bool:
        asked.append(1)
        return len(asked) > 2

    run_actions(clock=clock, seconds=30, is_stopping=is_stopping)
    action.refresh_from_db()
    assert (action.done_count, action.lease_until) == (10, None)


def test_request_stop_ends_the_work_before_the_next_batch(clock, monkeypatch):
    make_dead(12)
    action = requeue_all()
    real = operator_actions._move_rows

    def move_then_stop(*arguments):
        request_stop(action_id=action.pk, by="bob")
        return real(*arguments)

    monkeypatch.setattr(operator_actions, "_move_rows", move_then_stop)
    run_actions(clock=clock, seconds=30)

    action.refresh_from_db()
    assert (action.state, action.stopped_by, action.done_count) == ("stopped", "bob", 5)
    assert (action.finished_at, count(Status.PENDING), count(Status.DEAD)) == (LATER, 5, 7)
    assert run_actions(clock=clock, seconds=30) == 0


@pytest.fixture
def long_count(monkeypatch):
    """Let every look of the walk be at one row, and count the looks."""
    looks = []

    def walk(*, selection):
        after_id = 0
        while True:
            look = look_at_dead_letters(selection=selection, after_id=after_id, limit=1)
            looks.append(look)
            yield look
            if look.is_end:
                return
            after_id = look.last_id

    monkeypatch.setattr(operator_actions, "walk_dead_letters", walk)
    return looks


def test_counting_ends_when_the_time_is_over_and_the_first_batch_is_moved(clock, long_count):
    make_dead(12)
    action = requeue_all()

    ended = work_on(action_id=action.pk, clock=clock, seconds=0)

    assert (len(long_count), ended.done_count, ended.lease_until) == (1, 5, None)
    assert work_on(action_id=action.pk, clock=clock, seconds=30).done_count == 12
    assert len(long_count) == 1


def test_counting_ends_when_a_stop_is_asked_for(clock, long_count, monkeypatch):
    make_dead(12)
    action = requeue_all()
    monkeypatch.setattr(operator_actions, "LOOKS_A_LEASE", 1)
    asked = []

    def tick():
        if len(long_count) == 3 and not asked:
            asked.append(1)
            request_stop(action_id=action.pk, by="bob")
        return clock()

    assert work_on(action_id=action.pk, clock=tick, seconds=30).state == "stopped"
    assert (len(long_count), count(Status.PENDING)) == (3, 0)


def test_request_stop_refuses_when_the_action_is_over(clock):
    make_dead(12)
    action = requeue_all()
    run_actions(clock=clock, seconds=30)

    with pytest.raises(ActionOver):
        request_stop(action_id=action.pk, by="bob")


def test_run_actions_costs_one_query_when_there_is_nothing_to_do(clock, django_assert_num_queries):
    with django_assert_num_queries(1):
        assert run_actions(clock=clock, seconds=30) == 0


def test_many_ids_are_moved_in_the_background_too(clock):
    make_dead(12)
    ids = tuple(OutboxMessage.objects.order_by("id").values_list("id", flat=True)[:7])
    action = requeue_all(ids=ids)
    assert action.state == "waiting"

    run_actions(clock=clock, seconds=30)

    assert set(OutboxMessage.objects.filter(status=Status.PENDING).values_list("id", flat=True)) == set(ids)


def test_the_job_does_the_work_and_leaves_it_to_the_next_tick_when_the_database_is_away(monkeypatch):
    make_dead(12)
    action = requeue_all()
    away = OperationalError(2002, "Can't connect")
    with monkeypatch.context() as patched:
        patched.setattr(jobs, "is_away", lambda error: error is away)
        patched.setattr(jobs.connection, "close", lambda: None)
        patched.setattr(jobs.operator_actions, "run_actions", Mock(side_effect=away))
        jobs.run_operator_actions()
        patched.setattr(jobs.operator_actions, "run_actions", Mock(side_effect=OperationalError(1054, "no column")))
        with pytest.raises(OperationalError, match="no column"):
            jobs.run_operator_actions()
    assert count(Status.PENDING) == 0

    jobs.run_operator_actions()

    action.refresh_from_db()
    assert (action.state, count(Status.PENDING)) == ("done", 12)
