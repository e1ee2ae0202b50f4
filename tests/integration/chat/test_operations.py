"""Every write of conversations: what is written together, who may write, and what a second time does."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from django.db import IntegrityError, transaction

from chat import bookkeeping, operations
from chat.contracts import ChatStatus, Role, RunState
from chat.models import AgentChat, ChatHistory, ChatRun
from chat.operations import ConversationNotFound, ConversationTitleInvalid, RunAlreadyLive, RunNotOwned
from outbox.dispatch import Outcome
from outbox.envelope import decode_stored
from outbox.models import OutboxMessage
from outbox.testing import drain
from smartflow.events import ChatHistoryPersistRequested
from smartflow.kernel.errors import Invalid
from smartflow.kernel.ids import new_uuid
from tests.integration.chat.turns import LEASE_SECONDS, ask, result, talk

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)


def later(seconds):
    return NOW + timedelta(seconds=seconds)


def events():
    return [decode_stored(row.payload) for row in OutboxMessage.objects.order_by("id")]


def persist_event(run, *, tokens=7, role=Role.ASSISTANT, user_id=None, at=NOW):
    return ChatHistoryPersistRequested(
        user_id=user_id or run.user_id,
        conversation_id=run.conversation_id,
        run_id=run.run_id,
        role=role,
        message="text",
        tokens_consumed=tokens,
        occurred_at=at.isoformat(),
    )


# --- begin_turn


def test_begin_turn_writes_conversation_run_and_event_together(alice):
    started = ask(alice, "Hello", now=NOW)

    chat = AgentChat.objects.get()
    run = ChatRun.objects.get()
    assert (chat.chat_id, chat.user_id, chat.turn_count, chat.last_message_at) == (
        started.conversation_id,
        alice.pk,
        1,
        NOW,
    )
    assert (run.id, run.state, run.is_live, run.input_text) == (started.run_id, RunState.QUEUED, True, "Hello")
    assert run.lease_until == later(LEASE_SECONDS)
    (event,) = events()
    assert event.event_id == f"{run.id}:user"
    assert (event.payload["role"], event.payload["message"], event.payload["tokens_consumed"]) == ("user", "Hello", 0)
    row = OutboxMessage.objects.get()
    assert (row.message_key, row.request_id) == (chat.chat_id, "req-1")


def test_begin_turn_leaves_nothing_when_its_event_cannot_be_appended(alice, monkeypatch):
    def fail(**_kwargs):
        raise RuntimeError("no room")

    monkeypatch.setattr(operations, "append_event", fail)

    with pytest.raises(RuntimeError):
        ask(alice)

    assert not AgentChat.objects.exists()
    assert not ChatRun.objects.exists()


def test_begin_turn_counts_turns_of_a_conversation(alice):
    conversation_id = talk(alice, ("One", "1"), ("Two", "2"))

    assert ask(alice, "Three", conversation_id=conversation_id).turn_no == 3


def test_begin_turn_refuses_a_second_live_run_and_names_the_first(alice):
    first = ask(alice)

    with pytest.raises(RunAlreadyLive) as caught:
        ask(alice, conversation_id=first.conversation_id)

    assert caught.value.extra == {"run_id": first.run_id}
    assert ChatRun.objects.count() == 1
    assert OutboxMessage.objects.count() == 1


def test_begin_turn_refuses_conversations_that_are_not_the_users(alice, bob):
    of_alice = talk(alice, ("Secret", "yes"))
    deleted = talk(bob, ("Old", "gone"))
    operations.delete_conversation(user_id=bob.pk, conversation_id=deleted, now=NOW)

    for conversation_id in (of_alice, deleted, new_uuid()):
        with pytest.raises(ConversationNotFound):
            ask(bob, conversation_id=conversation_id)


def test_begin_turn_brings_an_archived_conversation_back(alice):
    conversation_id = talk(alice, ("One", "1"))
    operations.change_conversation(user_id=alice.pk, conversation_id=conversation_id, status=ChatStatus.ARCHIVED)

    ask(alice, conversation_id=conversation_id)

    assert AgentChat.objects.get().status == ChatStatus.ACTIVE


def test_database_itself_allows_one_live_run_a_conversation(alice):
    run = ask(alice)
    twin = ChatRun.objects.get(id=run.run_id)
    twin.pk, twin.turn_no = new_uuid(), 2

    with pytest.raises(IntegrityError), transaction.atomic():
        twin.save(force_insert=True)


# --- save_progress, finish_run


def test_save_progress_keeps_the_text_and_renews_the_lease(alice):
    run = ask(alice, now=NOW)

    operations.save_progress(run=run, text="Hal", prompt_tokens=12, lease_seconds=15, now=later(5))

    row = ChatRun.objects.get()
    assert (row.state, row.output_text, row.prompt_tokens) == (RunState.RUNNING, "Hal", 12)
    assert (row.started_at, row.lease_until) == (later(5), later(20))


def test_finish_run_writes_state_text_usage_and_event_together(alice):
    run = ask(alice, now=NOW)

    operations.finish_run(run=run, result=result("Hi there", total=9), now=later(3))

    row = ChatRun.objects.get()
    assert (row.state, row.is_live, row.lease_until, row.finished_at) == (RunState.FINISHED, None, None, later(3))
    assert (row.output_text, row.total_tokens) == ("Hi there", 9)
    answer = events()[-1]
    assert answer.event_id == f"{run.run_id}:assistant"
    assert (answer.payload["message"], answer.payload["tokens_consumed"]) == ("Hi there", 9)


def test_finish_run_twice_raises_and_appends_nothing(alice):
    run = ask(alice)
    operations.finish_run(run=run, result=result(), now=NOW)

    with pytest.raises(RunNotOwned):
        operations.finish_run(run=run, result=result("Other"), now=NOW)

    assert ChatRun.objects.get().output_text == "Hi there"
    assert len(events()) == 2


def test_finish_run_without_a_word_and_without_cost_says_nothing(alice):
    run = ask(alice)

    operations.finish_run(run=run, result=result("", state=RunState.FAILED, error_code="model_cut", total=0), now=NOW)

    assert len(events()) == 1
    assert ChatRun.objects.get().error_code == "model_cut"


def test_run_of_another_owner_cannot_be_written(alice):
    run = ask(alice, owner="web-1")
    stranger = type(run)(**{**run.__dict__, "owner": "web-2"})

    with pytest.raises(RunNotOwned):
        operations.save_progress(run=stranger, text="x", prompt_tokens=0, lease_seconds=15, now=NOW)
    with pytest.raises(RunNotOwned):
        operations.finish_run(run=stranger, result=result(), now=NOW)

    assert ChatRun.objects.get().output_text == ""


# --- end_orphaned_runs


def test_end_orphaned_runs_keeps_what_was_said_and_charges_an_estimate(alice):
    run = ask(alice, now=NOW)
    operations.save_progress(run=run, text="Half an ans", prompt_tokens=20, lease_seconds=15, now=NOW)

    assert operations.end_orphaned_runs(now=later(16)) == 1

    row = ChatRun.objects.get()
    assert (row.state, row.error_code, row.output_text) == (RunState.FAILED, "run_interrupted", "Half an ans")
    assert row.is_usage_estimated
    assert row.total_tokens == 20 + row.completion_tokens > 20
    assert events()[-1].payload["tokens_consumed"] == row.total_tokens


def test_end_orphaned_runs_leaves_runs_within_their_lease(alice):
    ask(alice, now=NOW)

    assert operations.end_orphaned_runs(now=later(LEASE_SECONDS)) == 0
    assert ChatRun.objects.get().is_live


def test_owner_of_an_ended_orphan_can_write_no_more(alice):
    run = ask(alice, now=NOW)
    operations.end_orphaned_runs(now=later(60))

    with pytest.raises(RunNotOwned):
        operations.save_progress(run=run, text="I am back", prompt_tokens=0, lease_seconds=15, now=later(61))
    with pytest.raises(RunNotOwned):
        operations.finish_run(run=run, result=result("I am back"), now=later(61))

    assert ChatRun.objects.get().output_text == ""
    assert len(events()) == 1


def test_end_orphaned_runs_is_fenced_when_the_owner_comes_back_in_between(alice, monkeypatch):
    run = ask(alice, now=NOW)
    lock = operations._lock_conversations

    def come_back(conversation_id):
        operations.save_progress(run=run, text="Here I am", prompt_tokens=5, lease_seconds=15, now=later(60))
        return lock(conversation_id)

    monkeypatch.setattr(operations, "_lock_conversations", come_back)

    assert operations.end_orphaned_runs(now=later(60)) == 0
    assert ChatRun.objects.get().is_live
    assert len(events()) == 1


def test_new_turn_is_possible_after_an_orphan(alice):
    run = ask(alice, now=NOW)
    operations.end_orphaned_runs(now=later(60))

    assert ask(alice, conversation_id=run.conversation_id, now=later(61)).turn_no == 2


def test_end_orphaned_runs_ends_at_most_the_limit_oldest_first(alice):
    runs = [ask(alice, now=later(number)) for number in range(3)]

    assert operations.end_orphaned_runs(now=later(60), limit=2) == 2
    assert ChatRun.objects.get(is_live=True).id == runs[2].run_id


# --- record_messages


def test_record_messages_writes_the_message_and_all_three_sums(alice):
    run = ask(alice)
    operations.record_messages(events={"e-1": persist_event(run, tokens=7)})

    history = ChatHistory.objects.get()
    chat = AgentChat.objects.get()
    alice.refresh_from_db()
    assert (history.tokens_consumed, history.source_event_id, history.created_at) == (7, "e-1", NOW)
    assert (chat.message_count, chat.tokens_total, alice.token_usage) == (1, 7, 7)


def test_record_messages_of_a_redelivered_event_changes_nothing(alice):
    run = ask(alice)
    for _ in range(3):
        operations.record_messages(events={"e-1": persist_event(run)})

    alice.refresh_from_db()
    chat = AgentChat.objects.get()
    assert (ChatHistory.objects.count(), chat.message_count, chat.tokens_total, alice.token_usage) == (1, 1, 7, 7)


def test_record_messages_never_subtracts(alice):
    run = ask(alice)
    operations.record_messages(events={"e-1": persist_event(run, tokens=-5)})

    alice.refresh_from_db()
    assert (AgentChat.objects.get().tokens_total, alice.token_usage) == (0, 0)


def test_record_messages_never_moves_the_last_message_back(alice):
    run = ask(alice, now=later(100))
    operations.record_messages(events={"e-1": persist_event(run)})

    assert AgentChat.objects.get().last_message_at == later(100)


def test_record_messages_moves_the_last_message_to_the_latest_of_them(alice):
    run = ask(alice, now=NOW)
    moments = [later(10), later(30.5), later(20)]
    operations.record_messages(
        events={f"e-{number}": persist_event(run, at=moment) for number, moment in enumerate(moments)}
    )

    assert AgentChat.objects.get().last_message_at == later(30.5)
    assert list(ChatHistory.objects.order_by("id").values_list("created_at", flat=True)) == moments


@pytest.mark.parametrize("moment", ["2026-03-01T08:00:00", "2026-03-01T08:00:00Z", "2026-03-01T16:00:00+08:00"])
def test_record_messages_reads_a_moment_without_a_zone_as_utc(alice, moment):
    operations.record_messages(events={"e-1": replace(persist_event(ask(alice)), occurred_at=moment)})

    assert ChatHistory.objects.get().created_at == NOW


@pytest.mark.parametrize("wrong", [{"occurred_at": "yesterday"}, {"tokens_consumed": 2**31}])
def test_record_messages_refuses_for_good_what_no_column_holds(alice, wrong):
    event = replace(persist_event(ask(alice)), **wrong)

    with pytest.raises(Invalid):
        operations.record_messages(events={"e-1": event})
    assert not ChatHistory.objects.exists()


def test_record_messages_writes_long_messages_in_portions(alice, monkeypatch, django_assert_num_queries):
    monkeypatch.setattr(bookkeeping, "_PORTION_BYTES", 40)
    run = ask(alice)
    events = {f"e-{number}": replace(persist_event(run), message="x" * (number + 1)) for number in range(9)}

    with django_assert_num_queries(11):  # six statements would do, and the history takes six instead of one
        operations.record_messages(events=events)
    assert [len(text) for text in ChatHistory.objects.order_by("id").values_list("message_content", flat=True)] == list(
        range(1, 10)
    )


def test_record_messages_of_a_vanished_conversation_raises(alice):
    run = ask(alice)
    event = persist_event(run)
    AgentChat.objects.all().delete()

    with pytest.raises(ConversationNotFound):
        operations.record_messages(events={"e-1": event})


def test_record_messages_counts_for_a_deleted_conversation(alice):
    run = ask(alice)
    operations.delete_conversation(user_id=alice.pk, conversation_id=run.conversation_id, now=NOW)

    operations.record_messages(events={"e-1": persist_event(run)})

    alice.refresh_from_db()
    assert alice.token_usage == 7


def test_drain_brings_both_messages_of_a_turn_to_the_books_in_order(alice):
    conversation_id = talk(alice, ("Question", "Answer"))

    assert drain() == {Outcome.CONSUMED: 2}

    rows = ChatHistory.objects.order_by("id").values_list("role", "message_content", "tokens_consumed")
    assert list(rows) == [("user", "Question", 0), ("assistant", "Answer", 9)]
    chat = AgentChat.objects.get(chat_id=conversation_id)
    alice.refresh_from_db()
    assert chat.tokens_total == alice.token_usage == 9


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
    assert len(events()) == 2


def test_record_messages_takes_six_statements_however_many_there_are(alice, bob, django_assert_num_queries):
    runs = [ask(alice), ask(alice), ask(bob)]
    events = {f"e-{run.run_id}-{number}": persist_event(run, tokens=2) for number in range(20) for run in runs}

    with django_assert_num_queries(6):  # find and lock conversations, known events, users, histories, counters
        operations.record_messages(events=events)

    assert ChatHistory.objects.count() == 60
    assert set(AgentChat.objects.values_list("message_count", "tokens_total")) == {(20, 40)}
    alice.refresh_from_db()
    bob.refresh_from_db()
    assert (alice.token_usage, bob.token_usage) == (80, 40)
