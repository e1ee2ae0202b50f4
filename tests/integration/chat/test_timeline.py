"""The timeline: a page is rebuilt from it alone, whatever became of the runs, the messages and the events."""

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from django.db import transaction

from chat import operations, queries
from chat.contracts import ContextStats, Role, RunState, TimelineKind
from chat.models import AgentChat, AgentTimelineEvent, ChatRun
from chat.operations import ConversationNotFound, RunNotOwned
from chat.operations.conversations import lock_own
from chat.operations.ownership import started_run
from chat.operations.timeline import NewEntry, append_timeline
from tests.integration.chat.turns import again, another, ask, go_on, result, talk

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)
CARD = {"card_type": "task_draft", "title": "Revise", "summary": "Two hours", "source": "quick_task", "data": {"n": 1}}


def append(user, conversation_id, *entries):
    with transaction.atomic():
        chat = lock_own(user_id=user.pk, conversation_id=conversation_id)
        append_timeline(chat=chat, entries=entries, now=NOW)


def seqs():
    return list(AgentTimelineEvent.objects.order_by("id").values_list("seq", flat=True))


def rebuild(user, conversation_id):
    """Draw a page as a client does, knowing nothing but the timeline's items."""
    page, turns, selected = [], {}, {}
    for item in queries.list_timeline(user_id=user.pk, conversation_id=conversation_id, after_seq=0, limit=500):
        turn_no = item.payload.get("turn_no")
        if item.kind == "assistant_text":
            if turn_no not in turns:
                turns[turn_no] = {"answers": []}
                page.append(turns[turn_no])
            turns[turn_no]["answers"].append((item.content, item.payload["state"]))
            if item.content:
                selected[turn_no] = item.payload["variant_no"]
        elif item.kind == "variant_selected":
            selected[turn_no] = item.payload["variant_no"]
        elif item.kind == "business_card":
            page.append({"card": item.payload["business_card"]})
        else:
            page.append({item.kind: item.content or item.payload.get("tool")})
    for turn_no, turn in turns.items():
        turn["shown"] = selected.get(turn_no)
    return page


def test_page_with_its_cards_is_rebuilt_from_the_timeline_alone(alice):
    first = ask(alice, "Plan my week", now=NOW)
    conversation_id = first.conversation_id
    tool = {"name": "list_tasks", "status": "start", "arguments_preview": "{}"}
    append(
        alice,
        conversation_id,
        NewEntry(kind=TimelineKind.TOOL_CALL, role=Role.ASSISTANT, payload={"tool": tool}, run_id=first.run_id),
        NewEntry(kind=TimelineKind.TOOL_RESULT, role=Role.TOOL, content="3 tasks", run_id=first.run_id),
        NewEntry(kind=TimelineKind.BUSINESS_CARD, role=Role.ASSISTANT, payload={"business_card": CARD}),
    )
    operations.finish_run(run=first, result=result("Done"), now=NOW)
    compacting = ask(alice, "And now?", conversation_id=conversation_id)
    operations.save_compaction(run=compacting, summary="Planned the week", covers_turn=1, tokens=40, now=NOW)
    operations.finish_run(run=compacting, result=result("Rest"), now=NOW)
    another(alice, compacting.run_id, answer="Sleep")
    cut = another(alice, compacting.run_id, answer="Eat")
    operations.select_variant(user_id=alice.pk, run_id=compacting.run_id, now=NOW)
    silent = again(alice, cut.run_id)
    failed = result("", state=RunState.FAILED, error_code="model_timeout", total=0)
    operations.finish_run(run=silent, result=failed, now=NOW)
    half = ask(alice, "Go on", conversation_id=conversation_id)
    operations.finish_run(run=half, result=result("Once", state=RunState.STOPPED), now=NOW)
    operations.finish_run(run=go_on(alice, half.run_id), result=result(" upon"), now=NOW)
    expected = [
        {"user_text": "Plan my week"},
        {"tool_call": tool},
        {"tool_result": "3 tasks"},
        {"card": CARD},
        {"answers": [("Done", "finished")], "shown": 1},
        {"user_text": "And now?"},
        {"context_compacted": "Planned the week"},
        {
            "answers": [("Rest", "finished"), ("Sleep", "finished"), ("Eat", "finished"), ("", "failed")],
            "shown": 1,
        },
        {"user_text": "Go on"},
        {"answers": [("Once", "stopped")], "shown": 1},
        {"answers": [(" upon", "finished")], "shown": 1},
    ]
    assert rebuild(alice, conversation_id) == expected
    shown = ChatRun.objects.filter(turn_no=2, is_current=True).get()
    assert shown.output_text == "Rest"

    ChatRun.objects.all().delete()

    assert rebuild(alice, conversation_id) == expected
    assert seqs() == list(range(1, len(seqs()) + 1))


def test_append_timeline_gives_seqs_on_from_the_last(alice):
    conversation_id = talk(alice, ("One", "1"))
    note = NewEntry(kind=TimelineKind.THINKING_SUMMARY, role=Role.ASSISTANT, content="hm")

    append(alice, conversation_id, note, note)

    assert seqs() == [1, 2, 3, 4]
    assert AgentChat.objects.get().timeline_seq == 4


def test_append_timeline_leaves_nothing_of_a_transaction_that_fails(alice):
    conversation_id = talk(alice, ("One", "1"))
    note = NewEntry(kind=TimelineKind.THINKING_SUMMARY, role=Role.ASSISTANT, content="hm")

    with transaction.atomic():
        append(alice, conversation_id, note)
        transaction.set_rollback(True)

    append(alice, conversation_id, note)
    assert seqs() == [1, 2, 3]


@pytest.mark.parametrize("entries", [1, 40])
def test_append_timeline_takes_two_statements(alice, django_assert_num_queries, entries):
    chat = AgentChat.objects.get(chat_id=talk(alice, ("One", "1")))
    note = NewEntry(kind=TimelineKind.THINKING_SUMMARY, role=Role.ASSISTANT, content="hm")

    with django_assert_num_queries(2):
        append_timeline(chat=chat, entries=[note] * entries, now=NOW)


# --- save_compaction, context stats


def test_save_compaction_keeps_the_summary_for_the_next_turn_and_the_messages_as_they_are(alice):
    conversation_id = talk(alice, ("One", "1"), ("Two", "2"))
    before = list(AgentTimelineEvent.objects.order_by("seq").values())
    run = ask(alice, "Three", conversation_id=conversation_id)

    for _ in range(2):
        operations.save_compaction(run=run, summary="Numbers", covers_turn=2, tokens=30, now=NOW)

    assert list(AgentTimelineEvent.objects.order_by("seq").values())[:4] == before
    marker = AgentTimelineEvent.objects.order_by("seq").last()
    assert (marker.kind, marker.content, marker.tokens_consumed) == ("context_compacted", "Numbers", 30)
    assert marker.payload == {"covers_turn": 2, "run_id": run.run_id}
    chat = AgentChat.objects.get()
    assert json.loads(chat.compaction_summary)["stages"]["chat"] == {"summary": "Numbers", "watermark": 2}
    reread = started_run(run=ChatRun.objects.select_related("chat").get(id=run.run_id))
    assert (reread.summary, reread.summary_covers_turn) == ("Numbers", 2)


def test_save_compaction_is_refused_when_the_run_is_lost(alice):
    run = ask(alice)
    operations.finish_run(run=run, result=result(), now=NOW)

    with pytest.raises(RunNotOwned):
        operations.save_compaction(run=run, summary="Late", covers_turn=1, tokens=1, now=NOW)
    assert AgentChat.objects.get().compaction_summary is None


def test_context_stats_are_those_of_the_last_call_and_nothing_before_the_first(alice, bob):
    run = ask(alice)
    of = {"user_id": alice.pk, "conversation_id": run.conversation_id}
    assert queries.find_context_stats(**of) is None

    stats = ContextStats(msg0=10, msg1=20, msg3=5, total=35, budget=80000)
    operations.finish_run(run=run, result=replace(result(), stats=stats), now=NOW)
    assert queries.find_context_stats(**of) == stats

    with pytest.raises(ConversationNotFound):
        queries.find_context_stats(user_id=bob.pk, conversation_id=run.conversation_id)
