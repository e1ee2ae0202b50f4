"""What events leave behind: history, sums, ledger and states, once and whatever the order."""

import json
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from itertools import permutations

import pytest
from django.core.cache import cache
from django.db import transaction
from django.db.models import Sum

from chat import bookkeeping, operations, queries
from chat.contracts import RunState
from chat.models import AgentChat, AgentStateSnapshot, ChatHistory
from chat.operations import ConversationNotFound
from outbox.append import append_event
from outbox.dispatch import Outcome
from outbox.models import OutboxMessage, Status
from outbox.testing import drain
from smartflow.accounts.contracts import ModelCall
from smartflow.accounts.models import TokenLedgerEntry
from smartflow.events import AgentStateSnapshotPersist, ChatHistoryPersistRequestedV1, ChatTokenUsageAdjustRequested
from smartflow.kernel.errors import Invalid
from tests.integration.chat.turns import answer_event, ask, call, result, talk

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)


def later(seconds):
    return NOW + timedelta(seconds=seconds)


def test_record_messages_writes_the_message_and_all_three_sums(alice):
    run = ask(alice)
    operations.record_messages(events={"e-1": answer_event(run, tokens=7, at=NOW)})

    history = ChatHistory.objects.get()
    chat = AgentChat.objects.get()
    alice.refresh_from_db()
    assert (history.tokens_consumed, history.source_event_id, history.created_at) == (7, "e-1", NOW)
    assert (chat.message_count, chat.tokens_total, alice.token_usage) == (1, 7, 7)


def test_record_messages_of_a_redelivered_event_changes_nothing(alice):
    run = ask(alice)
    for _ in range(3):
        operations.record_messages(events={"e-1": answer_event(run)})

    alice.refresh_from_db()
    chat = AgentChat.objects.get()
    assert (ChatHistory.objects.count(), chat.message_count, chat.tokens_total, alice.token_usage) == (1, 1, 7, 7)


def test_record_messages_never_subtracts(alice):
    run = ask(alice)
    operations.record_messages(events={"e-1": answer_event(run, tokens=-5)})

    alice.refresh_from_db()
    assert (AgentChat.objects.get().tokens_total, alice.token_usage) == (0, 0)


def test_record_messages_never_moves_the_last_message_back(alice):
    run = ask(alice, now=later(100))
    operations.record_messages(events={"e-1": answer_event(run, at=NOW)})

    assert AgentChat.objects.get().last_message_at == later(100)


def test_record_messages_moves_the_last_message_to_the_latest_of_them(alice):
    run = ask(alice, now=NOW)
    moments = [later(10), later(30.5), later(20)]
    operations.record_messages(
        events={f"e-{number}": answer_event(run, at=moment) for number, moment in enumerate(moments)}
    )

    assert AgentChat.objects.get().last_message_at == later(30.5)
    assert list(ChatHistory.objects.order_by("id").values_list("created_at", flat=True)) == moments


@pytest.mark.parametrize("moment", ["2026-03-01T08:00:00", "2026-03-01T08:00:00Z", "2026-03-01T16:00:00+08:00"])
def test_record_messages_reads_a_moment_without_a_zone_as_utc(alice, moment):
    operations.record_messages(events={"e-1": replace(answer_event(ask(alice)), occurred_at=moment)})

    assert ChatHistory.objects.get().created_at == NOW


@pytest.mark.parametrize("wrong", [{"occurred_at": "yesterday"}, {"tokens_consumed": 2**31}, {"tokens_consumed": 6}])
def test_record_messages_refuses_for_good_what_no_column_holds(alice, wrong):
    event = replace(answer_event(ask(alice)), **wrong)

    with pytest.raises(Invalid):
        operations.record_messages(events={"e-1": event})
    assert not ChatHistory.objects.exists()


def test_record_messages_writes_long_messages_in_portions(alice, monkeypatch, django_assert_num_queries):
    monkeypatch.setattr(bookkeeping, "_PORTION_BYTES", 40)
    run = ask(alice)
    events = {f"e-{number}": replace(answer_event(run), message="x" * (number + 1)) for number in range(9)}

    with django_assert_num_queries(12):  # seven statements would do, and the history takes six instead of one
        operations.record_messages(events=events)
    assert [len(text) for text in ChatHistory.objects.order_by("id").values_list("message_content", flat=True)] == list(
        range(1, 10)
    )


def test_record_messages_of_a_vanished_conversation_raises(alice):
    run = ask(alice)
    event = answer_event(run)
    AgentChat.objects.all().delete()

    with pytest.raises(ConversationNotFound):
        operations.record_messages(events={"e-1": event})


def test_record_messages_counts_for_a_deleted_conversation(alice):
    run = ask(alice)
    operations.delete_conversation(user_id=alice.pk, conversation_id=run.conversation_id, now=NOW)

    operations.record_messages(events={"e-1": answer_event(run)})

    alice.refresh_from_db()
    assert alice.token_usage == 7


def test_drain_brings_both_messages_of_a_turn_to_the_books_in_order(alice):
    conversation_id = talk(alice, ("Question", "Answer"))

    assert drain() == {Outcome.CONSUMED: 3}

    rows = ChatHistory.objects.order_by("id").values_list("role", "message_content", "tokens_consumed")
    assert list(rows) == [("user", "Question", 0), ("assistant", "Answer", 9)]
    chat = AgentChat.objects.get(chat_id=conversation_id)
    alice.refresh_from_db()
    assert chat.tokens_total == alice.token_usage == 9


def test_record_messages_takes_seven_statements_however_many_there_are(alice, bob, django_assert_num_queries):
    runs = [ask(alice), ask(alice), ask(bob)]
    events = {f"e-{run.run_id}-{number}": answer_event(run, tokens=2) for number in range(20) for run in runs}

    # find and lock conversations, known events, users, histories, ledger, counters
    with django_assert_num_queries(7):
        operations.record_messages(events=events)

    assert ChatHistory.objects.count() == 60
    assert set(AgentChat.objects.values_list("message_count", "tokens_total")) == {(20, 40)}
    alice.refresh_from_db()
    bob.refresh_from_db()
    assert (alice.token_usage, bob.token_usage) == (80, 40)


def test_record_messages_writes_one_row_of_the_ledger_for_each_call(alice):
    run = ask(alice)
    calls = [
        ModelCall(call_id="c-1", purpose="summary", model="worker", input_tokens=50, output_tokens=10, total_tokens=60),
        ModelCall(
            call_id="c-2",
            purpose="answer",
            model="strategist",
            input_tokens=30,
            cached_tokens=20,
            output_tokens=9,
            reasoning_tokens=4,
            total_tokens=40,  # what is charged is what the provider says, not a sum made here
            is_estimated=True,
        ),
    ]
    event = replace(answer_event(run, tokens=100, at=NOW), calls=[asdict(one) for one in calls])

    operations.record_messages(events={"e-1": event})

    rows = TokenLedgerEntry.objects.order_by("id")
    assert [(row.entry_key, row.purpose, row.model, row.total_tokens, row.is_estimated) for row in rows] == [
        ("c-1", "summary", "worker", 60, False),
        ("c-2", "answer", "strategist", 40, True),
    ]
    last = rows[1]
    assert (last.input_tokens, last.cached_tokens, last.output_tokens, last.reasoning_tokens) == (30, 20, 9, 4)
    assert {(row.user_id, row.conversation_id, row.run_id, row.created_at) for row in rows} == {
        (alice.pk, run.conversation_id, run.run_id, NOW)
    }
    alice.refresh_from_db()
    assert (alice.token_usage, AgentChat.objects.get().tokens_total, ChatHistory.objects.get().tokens_consumed) == (
        100,
        100,
        100,
    )


def test_record_messages_of_the_first_version_writes_their_sum_as_one_call(alice):
    run = ask(alice)
    values = answer_event(run, tokens=7).to_payload()
    del values["calls"]

    operations.record_messages(events={"e-1": ChatHistoryPersistRequestedV1.from_payload(values)})

    entry = TokenLedgerEntry.objects.get()
    assert (entry.entry_key, entry.total_tokens, entry.run_id) == ("e-1", 7, run.run_id)


@pytest.mark.parametrize("calls", [[{"call_id": "c"}], [{"price": 1}], ["text"], [None]])
def test_record_messages_refuses_calls_that_cannot_be_read(alice, calls):
    event = replace(answer_event(ask(alice)), calls=calls)

    with pytest.raises(Invalid):
        operations.record_messages(events={"e-1": event})
    assert not TokenLedgerEntry.objects.exists()


# --- record_token_adjustments


def adjustment(run, *, tokens=12, call_id="title-1"):
    return ChatTokenUsageAdjustRequested(
        user_id=run.user_id,
        conversation_id=run.conversation_id,
        run_id=run.run_id,
        tokens_delta=tokens,
        reason="title",
        triggered_at=NOW.isoformat(),
        call=asdict(call(tokens, call_id=call_id, purpose="title")),
    )


def sums(user):
    user.refresh_from_db()
    return (
        user.token_usage,
        AgentChat.objects.aggregate(sum=Sum("tokens_total"))["sum"],
        ChatHistory.objects.aggregate(sum=Sum("tokens_consumed"))["sum"],
        TokenLedgerEntry.objects.aggregate(sum=Sum("total_tokens"))["sum"],
    )


def test_record_token_adjustments_adds_to_the_ledger_and_all_three_sums_once(alice):
    run = ask(alice)
    operations.record_messages(events={f"{run.run_id}:assistant": answer_event(run, tokens=7)})

    for _ in range(2):
        operations.record_token_adjustments(
            events={"title-1": adjustment(run), "title-2": adjustment(run, call_id="title-2")}
        )

    assert sums(alice) == (31, 31, 31, 31)
    assert ChatHistory.objects.get().tokens_consumed == 31
    assert TokenLedgerEntry.objects.get(entry_key="title-1").purpose == "title"


@pytest.mark.parametrize("wrong", [{"tokens_delta": 5}, {"triggered_at": "soon"}, {"call": {"model": 1}}])
def test_record_token_adjustments_refuses_for_good_what_does_not_add_up(alice, wrong):
    run = ask(alice)

    with pytest.raises(Invalid):
        operations.record_token_adjustments(events={"title-1": replace(adjustment(run), **wrong)})
    assert sums(alice) == (0, 0, None, None)


# --- record_snapshots


def state(run, revision, *, text='{"version": 1}', **fields):
    values = {"user_id": run.user_id, "conversation_id": run.conversation_id, "phase": "chatting"}
    return AgentStateSnapshotPersist(**{**values, "snapshot_json": text, "revision": revision, **fields})


def kept():
    return list(AgentStateSnapshot.objects.order_by("conversation_id").values_list("revision", "snapshot_json"))


@pytest.mark.parametrize("revisions", list(permutations((2, 4, 6))))
def test_record_snapshots_keeps_the_newest_in_whatever_order_they_come(alice, revisions):
    run = ask(alice)

    for revision in revisions:
        text = f'{{"version": 1, "r": {revision}}}'
        operations.record_snapshots(events=[state(run, revision, text=text)], now=later(revision))

    assert kept() == [(6, '{"version": 1, "r": 6}')]
    assert AgentStateSnapshot.objects.get().updated_at == later(6)


def test_record_snapshots_of_many_conversations_takes_one_statement(alice, django_assert_num_queries):
    runs = [ask(alice, now=NOW) for _ in range(4)]
    events = [state(run, revision) for revision in (3, 1, 2) for run in runs]

    with django_assert_num_queries(1):
        operations.record_snapshots(events=events, now=NOW)

    assert [revision for revision, _text in kept()] == [3] * 4


@pytest.mark.parametrize(
    "wrong",
    [
        {"text": "no json"},
        {"text": "[1]"},
        {"text": "{}"},
        {"text": '{"version": "1"}'},
        {"phase": ""},
        {"phase": "x" * 33},
        {"revision": 2**63},
    ],
)
def test_unreadable_snapshot_is_dead_at_once_with_the_reason(alice, wrong):
    run = ask(alice)
    drain()
    event = state(run, **{"revision": 1, **wrong})
    with transaction.atomic():
        append_event(event=event, key=run.conversation_id, event_id="bad", now=NOW)

    assert drain() == {Outcome.DEAD: 1}

    row = OutboxMessage.objects.get(event_id="bad")
    assert (row.status, row.retry_count) == (Status.DEAD, 1)
    assert "SnapshotUnreadable" in row.last_error
    assert kept() == []


@pytest.mark.parametrize("code", ["model_cut", "model_reached_length"])
def test_state_after_a_run_is_restored_from_the_database_alone(alice, bob, code):
    conversation_id = talk(alice, ("Question", "Answer"))
    run = ask(alice, "More", conversation_id=conversation_id)
    operations.finish_run(run=run, result=result("Ha", state=RunState.FAILED, error_code=code), now=NOW)
    drain()
    cache.clear()  # as after a restart

    found = queries.find_state_snapshot(user_id=alice.pk, conversation_id=conversation_id)

    assert found is not None
    assert (found.phase, found.revision) == ("chatting", 4)
    assert json.loads(found.snapshot_json) == {
        "version": 1,
        "last_run_id": run.run_id,
        "terminal_outcome": {"status": "interrupted", "code": code},
    }
    assert queries.find_state_snapshot(user_id=bob.pk, conversation_id=conversation_id) is None
