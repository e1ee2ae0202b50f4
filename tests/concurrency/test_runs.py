"""Races over a run: executors against each other, the sweep, a stop and an owner that comes back."""

from datetime import timedelta

import pytest

from chat import operations
from chat.contracts import RunProgress, RunState
from chat.models import AgentTimelineEvent, ChatRun
from chat.operations import RunNotOwned
from outbox.models import OutboxMessage
from smartflow.accounts.models import TokenHold, TokenWindow
from smartflow.kernel.clock import utc_now
from tests.factories import make_user
from tests.integration.chat.turns import LEASE_SECONDS, ask, end_orphaned_runs, result
from tests.racing import run_at_once

pytestmark = pytest.mark.django_db(transaction=True)


def after_lease(seconds=1):
    return utc_now() + timedelta(seconds=LEASE_SECONDS + seconds)


def claim(run, owner, now):
    return operations.claim_run(run_id=run.run_id, owner=owner, lease_seconds=12, now=now)


def save(run, now, text="Text"):
    return operations.save_progress(saves=[(run, RunProgress(text=text))], lease_seconds=12, now=now)


def assert_ended_once(run, *, state=None):
    """The run has one end: one answer in the timeline, one settled hold, at most one event of the answer."""
    row = ChatRun.objects.get(id=run.run_id)
    assert row.is_live is None
    assert state is None or row.state == state
    assert AgentTimelineEvent.objects.filter(run_id=run.run_id, kind="assistant_text").count() == 1
    assert OutboxMessage.objects.filter(event_id=f"{run.run_id}:assistant").count() == int(row.total_tokens > 0)
    hold = TokenHold.objects.get(pk=run.run_id)
    window = TokenWindow.objects.get(pk=hold.window_id)
    assert (hold.charged_tokens, window.used_tokens, window.held_tokens) == (row.total_tokens, row.total_tokens, 0)


@pytest.mark.parametrize("owner", ["", "dead:1:0"])
def test_of_many_executors_one_gets_the_run(alice, owner):
    run = ask(alice, owner=owner)
    now = after_lease()

    taken = [
        outcome for outcome in run_at_once(*[lambda n=n: claim(run, f"executor-{n}", now) for n in range(6)]) if outcome
    ]

    row = ChatRun.objects.get()
    assert [(one.owner, one.epoch) for one in taken] == [(row.owner, row.epoch)]
    assert row.epoch == (2 if owner else 1)


def test_many_executors_share_many_runs_without_taking_one_twice():
    users = [make_user(f"user-{number}") for number in range(4)]
    runs = [ask(user, owner="") for user in users for _ in range(5)]
    now = utc_now() + timedelta(seconds=1)

    def take(owner):
        mine = []
        while waiting := operations.list_claimable_runs(now=now, limit=3):
            mine += [taken for one in waiting if (taken := claim_id(one.run_id, owner, now)) is not None]
        return mine

    def claim_id(run_id, owner, now):
        return operations.claim_run(run_id=run_id, owner=owner, lease_seconds=12, now=now)

    shares = run_at_once(*[lambda n=n: take(f"executor-{n}") for n in range(4)])

    taken = [run.run_id for share in shares for run in share]
    assert sorted(taken) == sorted(run.run_id for run in runs)


def test_claim_and_the_old_owners_first_word_never_both_happen(alice):
    for _ in range(10):
        run = ask(alice)
        now = after_lease()

        lost, taken = run_at_once(lambda r=run, n=now: save(r, n), lambda r=run, n=now: claim(r, "second", n))

        row = ChatRun.objects.get(id=run.run_id)
        assert (lost == {run.run_id}) == (taken is not None)
        assert row.has_spoken == (taken is None)
        operations.finish_run(run=taken or run, result=result(), now=now)


def test_claim_and_stop_leave_a_run_stopped_or_told_to_its_owner(alice):
    for _ in range(10):
        run = ask(alice, owner="")
        now = utc_now() + timedelta(seconds=1)

        state, taken = run_at_once(
            lambda r=run, n=now: operations.request_stop(user_id=alice.pk, run_id=r.run_id, now=n),
            lambda r=run, n=now: claim(r, "second", n),
        )

        if taken is None:
            assert state == RunState.STOPPED
        else:
            assert state == RunState.QUEUED
            assert operations.list_stop_requests(owner="second") == [run.run_id]
            operations.finish_run(run=taken, result=result("", state=RunState.STOPPED, total=0), now=now)
        assert_ended_with_a_settled_hold(run)


def assert_ended_with_a_settled_hold(run):
    assert ChatRun.objects.get(id=run.run_id).state == RunState.STOPPED
    assert TokenHold.objects.get(pk=run.run_id).charged_tokens == 0


def test_claim_and_sweep_never_both_have_the_run(alice):
    for _ in range(10):
        run = ask(alice)
        now = after_lease(20)

        ended, taken = run_at_once(lambda n=now: end_orphaned_runs(now=n), lambda r=run, n=now: claim(r, "second", n))

        assert (ended == 1) == (taken is None)
        if taken is not None:
            operations.finish_run(run=taken, result=result("", state=RunState.STOPPED, total=0), now=now)


def test_two_sweeps_and_a_returning_owner_end_a_run_once(alice):
    run = ask(alice)
    save(run, utc_now())
    now = after_lease()

    outcomes = run_at_once(
        lambda: end_orphaned_runs(now=now),
        lambda: end_orphaned_runs(now=now),
        lambda: operations.finish_run(run=run, result=result("Whole answer"), now=now),
    )

    finished = not isinstance(outcomes[2], RunNotOwned)
    assert sum(outcomes[:2]) + finished == 1
    assert_ended_once(run, state=RunState.FINISHED if finished else RunState.FAILED)


def test_stop_finish_and_save_at_once_end_a_run_once(alice):
    run = ask(alice)
    now = utc_now()

    outcomes = run_at_once(
        lambda: operations.request_stop(user_id=alice.pk, run_id=run.run_id, now=now),
        lambda: operations.finish_run(run=run, result=result("Whole"), now=now),
        lambda: save(run, now, "Wh"),
    )

    assert not any(isinstance(outcome, Exception) for outcome in outcomes)
    assert_ended_once(run, state=RunState.FINISHED)
    assert ChatRun.objects.get().output_text == "Whole"


def test_release_and_stop_at_once_leave_no_run_behind(alice):
    for _ in range(10):
        run = ask(alice)
        now = utc_now()

        state, given = run_at_once(
            lambda r=run, n=now: operations.request_stop(user_id=alice.pk, run_id=r.run_id, now=n),
            lambda r=run, n=now: operations.release_run(run=r, is_blank=True, now=n),
        )

        row = ChatRun.objects.get(id=run.run_id)
        assert given
        if row.is_live:
            assert state in (RunState.QUEUED, RunState.RUNNING)
            later = after_lease(30)
            assert [one.run_id for one in operations.list_orphaned_runs(now=later, limit=9)] == [run.run_id]
            operations.end_orphaned_run(run_id=run.run_id, now=later)
        assert ChatRun.objects.get(id=run.run_id).state == RunState.STOPPED


def test_savers_of_many_runs_and_their_ends_never_wait_in_a_circle():
    users = [make_user(f"user-{number}") for number in range(5)]
    runs = [ask(user) for user in users for _ in range(4)]

    def save_all(order):
        for _ in range(20):
            progress = [(run, RunProgress(text="Text")) for run in order]
            operations.save_progress(saves=progress, lease_seconds=12, now=utc_now())
            operations.renew_leases(runs=order, lease_seconds=12, now=utc_now())

    def finish_half():
        for run in runs[::2]:
            operations.finish_run(run=run, result=result(), now=utc_now())

    outcomes = run_at_once(lambda: save_all(runs), lambda: save_all(runs[::-1]), finish_half)

    assert outcomes == [None, None, None]
    assert ChatRun.objects.filter(is_live=True, has_spoken=True).count() == 10
