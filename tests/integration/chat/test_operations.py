"""Every write of conversations and runs behind their beginning: who may write, and what a second time does."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from chat import operations
from chat.contracts import ChatStatus, RunState
from chat.models import AgentChat, ChatRun
from chat.operations import ConversationNotFound, ConversationTitleInvalid, RunNotOwned, endings
from tests.integration.chat.turns import LEASE_SECONDS, ask, end_orphaned_runs, events, messages, result, say, talk

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)


def later(seconds):
    return NOW + timedelta(seconds=seconds)


def test_save_progress_keeps_the_text_and_renews_the_lease(alice):
    run = ask(alice, now=NOW)

    assert say(run, "Hal", prompt_tokens=12, now=later(5)) == frozenset()

    row = ChatRun.objects.get()
    assert (row.state, row.output_text, row.prompt_tokens) == (RunState.RUNNING, "Hal", 12)
    assert (row.started_at, row.lease_until) == (later(5), later(5 + LEASE_SECONDS))
    assert row.has_spoken


def test_finish_run_writes_state_text_usage_and_event_together(alice):
    run = ask(alice, now=NOW)

    operations.finish_run(run=run, result=result("Hi there", total=9), now=later(3))

    row = ChatRun.objects.get()
    assert (row.state, row.is_live, row.lease_until, row.finished_at) == (RunState.FINISHED, None, None, later(3))
    assert (row.output_text, row.total_tokens) == ("Hi there", 9)
    answer, state = events()[-2:]
    assert answer.event_id == f"{run.run_id}:assistant"
    assert (answer.payload["message"], answer.payload["tokens_consumed"]) == ("Hi there", 9)
    assert (state.event_id, state.payload["revision"]) == (f"{run.run_id}:snapshot", 2)


def test_finish_run_twice_raises_and_appends_nothing(alice):
    run = ask(alice)
    operations.finish_run(run=run, result=result(), now=NOW)

    with pytest.raises(RunNotOwned):
        operations.finish_run(run=run, result=result("Other"), now=NOW)

    assert ChatRun.objects.get().output_text == "Hi there"
    assert len(messages()) == 2
    assert len(events()) == 3


def test_finish_run_without_a_word_and_without_cost_says_nothing(alice):
    run = ask(alice)

    operations.finish_run(run=run, result=result("", state=RunState.FAILED, error_code="model_cut", total=0), now=NOW)

    assert len(messages()) == 1
    assert ChatRun.objects.get().error_code == "model_cut"


def test_run_of_another_owner_cannot_be_written(alice):
    run = ask(alice, owner="web-1")

    for stranger in (replace(run, owner="web-2"), replace(run, epoch=run.epoch - 1)):
        assert say(stranger, "x", now=NOW) == {run.run_id}
        with pytest.raises(RunNotOwned):
            operations.finish_run(run=stranger, result=result(), now=NOW)

    assert ChatRun.objects.get().output_text == ""


# --- end_orphaned_runs


def test_end_orphaned_runs_keeps_what_was_said_and_charges_an_estimate(alice):
    run = ask(alice, now=NOW)
    say(run, "Half an ans", prompt_tokens=20, now=NOW)

    assert end_orphaned_runs(now=later(16)) == 1

    row = ChatRun.objects.get()
    assert (row.state, row.error_code, row.output_text) == (RunState.FAILED, "run_interrupted", "Half an ans")
    assert row.is_usage_estimated
    assert row.total_tokens == 20 + row.completion_tokens > 20
    assert messages()[-1].payload["tokens_consumed"] == row.total_tokens


def test_end_orphaned_runs_leaves_runs_within_their_lease(alice):
    ask(alice, now=NOW)

    assert end_orphaned_runs(now=later(LEASE_SECONDS)) == 0
    assert ChatRun.objects.get().is_live


def test_owner_of_an_ended_orphan_can_write_no_more(alice):
    run = ask(alice, now=NOW)
    end_orphaned_runs(now=later(60))

    assert say(run, "I am back", now=later(61)) == {run.run_id}
    with pytest.raises(RunNotOwned):
        operations.finish_run(run=run, result=result("I am back"), now=later(61))

    assert ChatRun.objects.get().output_text == ""
    assert len(messages()) == 1


def test_end_orphaned_runs_is_fenced_when_the_owner_comes_back_in_between(alice, monkeypatch):
    run = ask(alice, now=NOW)
    lock = endings.lock_conversation

    def come_back(*, conversation_id):
        say(run, "Here I am", now=later(60))
        return lock(conversation_id=conversation_id)

    monkeypatch.setattr(endings, "lock_conversation", come_back)

    assert end_orphaned_runs(now=later(60)) == 0
    assert ChatRun.objects.get().is_live
    assert len(events()) == 1


def test_new_turn_is_possible_after_an_orphan(alice):
    run = ask(alice, now=NOW)
    end_orphaned_runs(now=later(60))

    assert ask(alice, conversation_id=run.conversation_id, now=later(61)).turn_no == 2


def test_end_orphaned_runs_ends_at_most_the_limit_oldest_first(alice):
    runs = [ask(alice, now=later(number)) for number in range(3)]

    assert end_orphaned_runs(now=later(60), limit=2) == 2
    assert ChatRun.objects.get(is_live=True).id == runs[2].run_id


# --- change_conversation, delete_conversation


def test_change_conversation_changes_what_is_given_only(alice):
    conversation_id = talk(alice, ("One", "1"))

    operations.change_conversation(user_id=alice.pk, conversation_id=conversation_id, title="  Maths  ")
    operations.change_conversation(user_id=alice.pk, conversation_id=conversation_id, status=ChatStatus.ARCHIVED)

    chat = AgentChat.objects.get()
    assert (chat.title, chat.status) == ("Maths", ChatStatus.ARCHIVED)


def test_change_conversation_to_the_same_values_is_no_error(alice):
    conversation_id = talk(alice, ("One", "1"))
    for _ in range(2):
        operations.change_conversation(user_id=alice.pk, conversation_id=conversation_id, title="Maths")

    assert AgentChat.objects.get().title == "Maths"


@pytest.mark.parametrize("title", ["", "  ", "x" * 256])
def test_change_conversation_refuses_titles_that_are_blank_or_too_long(alice, title):
    conversation_id = talk(alice, ("One", "1"))

    with pytest.raises(ConversationTitleInvalid):
        operations.change_conversation(user_id=alice.pk, conversation_id=conversation_id, title=title)

    assert AgentChat.objects.get().title is None


def test_bob_can_neither_change_nor_delete_what_is_alices(alice, bob):
    conversation_id = talk(alice, ("One", "1"))

    with pytest.raises(ConversationNotFound):
        operations.change_conversation(user_id=bob.pk, conversation_id=conversation_id, title="Bob's")
    with pytest.raises(ConversationNotFound):
        operations.delete_conversation(user_id=bob.pk, conversation_id=conversation_id, now=NOW)

    chat = AgentChat.objects.get()
    assert (chat.title, chat.deleted_at) == (None, None)


def test_run_that_ends_after_its_conversation_was_deleted_ends_as_usual(alice):
    run = ask(alice)
    operations.delete_conversation(user_id=alice.pk, conversation_id=run.conversation_id, now=NOW)

    operations.finish_run(run=run, result=result(), now=NOW)

    assert ChatRun.objects.get().state == RunState.FINISHED
    assert len(messages()) == 2
