"""Leases and the fence: who may take a run, who may write it, who may end it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from chat import operations
from chat.contracts import RunProgress, RunState
from chat.models import ChatRun
from chat.operations import NOT_STARTED, RecoveredText, RunNotOwned
from outbox.testing import drain
from smartflow.accounts.models import TokenLedgerEntry, TokenWindow
from tests.integration.chat.turns import LEASE_SECONDS, OWNER, ask, end_orphaned_runs, result

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)


def later(seconds):
    return NOW + timedelta(seconds=seconds)


def save(*runs, text="Text", now=NOW):
    saves = [(run, RunProgress(text=text)) for run in runs]
    return operations.save_progress(saves=saves, lease_seconds=12, now=now)


def claim(run, *, owner="second", now):
    return operations.claim_run(run_id=run.run_id, owner=owner, lease_seconds=12, now=now)


def listed(now):
    return [run.run_id for run in operations.list_claimable_runs(now=now, limit=9)]


def orphaned(now):
    return [run.run_id for run in operations.list_orphaned_runs(now=now, limit=9)]


def test_claim_run_raises_the_epoch_and_counts_the_dead_owners_attempt(alice):
    run = ask(alice, now=NOW)
    taken = claim(run, now=later(20))

    assert (taken.owner, taken.epoch, taken.attempt) == ("second", 2, 2)
    assert operations.renew_leases(runs=[run], lease_seconds=12, now=later(21)) == {run.run_id}
    assert operations.renew_leases(runs=[taken], lease_seconds=12, now=later(21)) == frozenset()


def test_claim_run_of_a_queued_run_is_its_first_attempt(alice):
    run = ask(alice, now=NOW, owner="")
    taken = claim(run, now=later(1))

    assert (taken.epoch, taken.attempt) == (1, 1)


def test_claim_run_leaves_what_is_owned_spoken_or_to_be_stopped(alice, bob):
    owned, spoken = ask(alice, now=NOW), ask(alice, now=NOW)
    save(spoken)
    stopped = ask(bob, now=NOW)
    operations.request_stop(user_id=bob.pk, run_id=stopped.run_id, now=NOW)

    assert claim(owned, now=later(LEASE_SECONDS)) is None
    assert claim(spoken, now=later(60)) is None
    assert claim(stopped, now=later(60)) is None
    assert listed(later(60)) == [owned.run_id]


def test_run_that_kills_its_executors_is_given_up_after_three_attempts(alice):
    run, moment = ask(alice, now=NOW), 0
    for _ in range(2):
        moment += 20
        run = claim(run, now=later(moment))
    assert run.attempt == 3

    assert claim(run, now=later(moment + 20)) is None
    assert orphaned(later(moment + 13)) == [run.run_id]


def test_lease_of_a_clock_that_was_ahead_counts_as_over(alice):
    run = ask(alice, now=later(3600))

    assert listed(NOW) == [run.run_id]
    assert claim(run, now=NOW).attempt == 2


def test_clock_that_is_a_little_ahead_costs_nobody_a_run(alice):
    ask(alice, now=later(2))

    assert listed(NOW) == []


def test_save_progress_of_a_text_marks_the_run_as_spoken_and_an_event_does_not(alice, bob):
    spoken, noted = ask(alice, now=NOW), ask(bob, now=NOW)
    event = {"at": 0, "data": {"kind": "status"}}
    operations.save_progress(
        saves=[(spoken, RunProgress(text="A")), (noted, RunProgress(text="", events=(event,)))],
        lease_seconds=12,
        now=later(1),
    )

    assert dict(ChatRun.objects.values_list("id", "has_spoken")) == {spoken.run_id: True, noted.run_id: False}
    assert set(ChatRun.objects.values_list("lease_until", flat=True)) == {later(13)}


def test_save_progress_names_lost_runs_and_writes_the_others(alice, bob):
    mine, lost = ask(alice, now=NOW), ask(bob, now=NOW)

    assert save(mine, replace(lost, epoch=7)) == {lost.run_id}
    assert dict(ChatRun.objects.values_list("id", "output_text")) == {mine.run_id: "Text", lost.run_id: ""}


@pytest.mark.parametrize(
    "text", ["nul \x00 nul", "😀 世界", "\u2028 \\ \" ' % %s", "line\r\n\ttab", "[[1]]", "x" * 300_000]
)
def test_save_progress_keeps_every_character(alice, text):
    run = ask(alice, now=NOW)
    events = ({"at": 3, "data": {"kind": "status", "text": text[:50]}},)
    operations.save_progress(saves=[(run, RunProgress(text=text, events=events))], lease_seconds=12, now=NOW)

    row = ChatRun.objects.get()
    assert (row.output_text, row.output_events) == (text, list(events))


def test_save_progress_of_many_runs_takes_few_statements(alice):
    runs = [ask(alice, now=NOW) for _ in range(5)]
    with CaptureQueriesContext(connection) as queries:
        assert save(*runs) == frozenset()

    # on SQLite one call for all of them, in which each row is a statement
    assert len([query for query in queries if "UPDATE" in query["sql"]]) == 1


def test_renew_leases_takes_one_statement_for_all_runs_of_an_owner(alice, bob):
    runs = [ask(alice, now=NOW), ask(alice, now=NOW), ask(bob, now=NOW)]
    with CaptureQueriesContext(
        connection,
    ) as queries:
        assert operations.renew_leases(runs=runs, lease_seconds=12, now=later(3)) == frozenset()

    assert len(queries) == 1
    assert set(ChatRun.objects.values_list("lease_until", flat=True)) == {later(15)}


def test_release_run_gives_a_silent_run_back_at_once(alice):
    run = ask(alice, now=NOW)

    assert operations.release_run(run=run, is_blank=True, now=later(3))
    taken = claim(run, now=later(3.001))
    assert (taken.attempt, taken.epoch) == (1, 2)


def test_release_run_that_told_its_readers_something_begins_another_attempt(alice):
    run = ask(alice, now=NOW)
    operations.release_run(run=run, is_blank=False, now=later(3))

    assert claim(run, now=later(4)).attempt == 2


def test_release_run_refuses_what_has_spoken_or_is_somebody_elses(alice, bob):
    spoken, lost = ask(alice, now=NOW), ask(bob, now=NOW)
    save(spoken)

    assert not operations.release_run(run=spoken, is_blank=True, now=NOW)
    assert not operations.release_run(run=replace(lost, owner="other"), is_blank=True, now=NOW)
    assert set(ChatRun.objects.values_list("owner", flat=True)) == {OWNER}


def test_orphans_wait_for_another_executor_before_they_are_given_up(alice, bob):
    dead, queued = ask(alice, now=NOW), ask(bob, now=NOW, owner="")

    assert orphaned(later(LEASE_SECONDS + 7)) == []
    assert orphaned(later(LEASE_SECONDS + 9)) == [dead.run_id]
    assert set(orphaned(later(61))) == {dead.run_id, queued.run_id}


def test_run_that_was_given_back_waits_as_long_as_one_whose_owner_died(alice):
    run = ask(alice, now=NOW)
    operations.release_run(run=run, is_blank=True, now=NOW)

    assert orphaned(later(19)) == []
    assert orphaned(later(21)) == [run.run_id]


def test_orphan_that_never_had_an_owner_is_told_that_it_was_not_begun(alice):
    run = ask(alice, now=NOW, owner="")

    assert operations.end_orphaned_run(run_id=run.run_id, now=later(61))
    row = ChatRun.objects.get()
    assert (row.state, row.error_code, row.total_tokens) == (RunState.FAILED, NOT_STARTED, 0)
    assert TokenWindow.objects.get().held_tokens == 0


def test_end_orphaned_run_with_recovered_text_does_not_wait(alice):
    run = ask(alice, now=NOW)
    recovered = RecoveredText(text="Seen")

    assert not operations.end_orphaned_run(run_id=run.run_id, now=later(16))
    assert not operations.end_orphaned_run(run_id=run.run_id, recovered=recovered, now=later(14))
    assert operations.end_orphaned_run(run_id=run.run_id, recovered=recovered, now=later(16))
    assert ChatRun.objects.get().output_text == "Seen"


def test_end_orphaned_run_ignores_recovered_text_of_another_answer(alice):
    run = ask(alice, now=NOW)
    save(run, text="Stored text")

    operations.end_orphaned_run(run_id=run.run_id, recovered=RecoveredText(text="Stored"), now=later(60))
    assert ChatRun.objects.get().output_text == "Stored text"


def test_request_stop_ends_a_run_that_nobody_has_and_charges_nothing(alice):
    run = ask(alice, now=NOW, owner="")

    assert operations.request_stop(user_id=alice.pk, run_id=run.run_id, now=NOW) == RunState.STOPPED
    row, window = ChatRun.objects.get(), TokenWindow.objects.get()
    assert (row.state, row.is_live, window.used_tokens, window.held_tokens) == (RunState.STOPPED, None, 0, 0)


def test_request_stop_leaves_a_dead_owners_run_to_the_sweep(alice):
    run = ask(alice, now=NOW)
    save(run)

    assert operations.request_stop(user_id=alice.pk, run_id=run.run_id, now=later(60)) == RunState.RUNNING
    assert operations.end_orphaned_run(run_id=run.run_id, recovered=RecoveredText(text="Text, and more"), now=later(61))
    row = ChatRun.objects.get()
    assert (row.state, row.error_code, row.output_text) == (RunState.STOPPED, "", "Text, and more")


def test_request_stop_keeps_the_first_moment_and_leaves_an_ended_run(alice):
    run = ask(alice, now=NOW)
    for second in (1, 2):
        operations.request_stop(user_id=alice.pk, run_id=run.run_id, now=later(second))
    assert ChatRun.objects.get().stop_requested_at == later(1)

    operations.finish_run(run=run, result=result(), now=later(3))
    assert operations.request_stop(user_id=alice.pk, run_id=run.run_id, now=later(4)) == RunState.FINISHED


def test_owner_before_a_claim_can_neither_save_nor_finish(alice):
    run = ask(alice, now=NOW)
    claim(run, now=later(20))

    assert save(run, now=later(21)) == {run.run_id}
    with pytest.raises(RunNotOwned):
        operations.finish_run(run=run, result=result(), now=later(21))
    assert ChatRun.objects.get().output_text == ""


# --- what was asked of the model and never seen


def asked(run, tokens, now=NOW):
    progress = RunProgress(text="", prompt_tokens=tokens)
    operations.save_progress(saves=[(run, progress)], lease_seconds=12, now=now)


def charged(run):
    """The calls of the run as the ledger has them."""
    drain()
    entries = TokenLedgerEntry.objects.filter(run_id=run.run_id).order_by("entry_key")
    return [(entry.entry_key, entry.purpose, entry.total_tokens, entry.is_estimated) for entry in entries]


def test_attempts_that_died_before_the_first_word_are_charged_when_the_run_ends(alice):
    run = ask(alice, now=NOW)
    asked(run, 300)
    second = claim(run, now=later(20))
    asked(second, 310, now=later(20))
    third = claim(second, owner="third", now=later(40))
    operations.finish_run(run=third, result=result(total=9), now=later(41))

    row = ChatRun.objects.get()
    assert (row.attempt, row.lost_tokens, row.total_tokens) == (3, 610, 619)
    assert TokenWindow.objects.get().used_tokens == 619
    (_answers_key, *answer), lost = sorted(charged(run), key=lambda entry: entry[1])
    assert answer == ["answer", 9, False]
    assert lost == (f"{run.run_id}:lost", "chat", 610, True)
    alice.refresh_from_db()
    assert alice.token_usage == 619


def test_attempt_that_died_before_it_asked_the_model_costs_nothing(alice):
    run = ask(alice, now=NOW)
    second = claim(run, now=later(20))
    operations.finish_run(run=second, result=result(total=9), now=later(21))

    assert ChatRun.objects.get().total_tokens == 9
    assert [entry[1] for entry in charged(run)] == ["answer"]


def test_run_that_is_given_up_without_a_word_is_charged_what_was_asked(alice):
    run = ask(alice, now=NOW)
    asked(run, 300)

    assert end_orphaned_runs(now=later(60)) == 1
    assert ChatRun.objects.get().total_tokens == 300
    assert charged(run) == [(f"{run.run_id}:1:abandoned", "answer", 300, True)]


def test_what_a_run_cost_that_was_given_back_is_charged_when_it_ends(alice):
    run = ask(alice, now=NOW)
    asked(run, 300)
    operations.release_run(run=run, is_blank=True, spent_tokens=320, now=later(1))
    second = claim(run, now=later(2))
    operations.finish_run(run=second, result=result(total=9), now=later(3))

    assert ChatRun.objects.get().total_tokens == 329
    assert sorted(entry[1:3] for entry in charged(run)) == [("answer", 9), ("chat", 320)]
