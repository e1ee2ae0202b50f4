"""Conversations from before the timeline and the ledger: what the migrations make of them."""

from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from chat import operations, queries
from chat.contracts import StartedRun
from chat.ledger_check import check_ledger
from chat.models import AgentChat, AgentTimelineEvent, ChatRun
from chat.operations.ownership import started_run
from outbox.testing import drain
from smartflow.accounts.models import TokenLedgerEntry
from smartflow.kernel.ids import new_uuid
from tests.integration.chat.turns import ask, result

pytestmark = pytest.mark.django_db(transaction=True)
NOW = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)
BEFORE = [("chat", "0003_cascade_in_the_database")]


def migrate(targets):
    executor = MigrationExecutor(connection)
    executor.migrate(targets)
    return executor.loader.project_state(targets).apps


@pytest.fixture
def earlier():
    """The models as they were; the present tables are back at the end whatever happens."""
    latest = [key for key in MigrationExecutor(connection).loader.graph.leaf_nodes() if key[0] == "chat"]
    try:
        yield migrate(BEFORE), lambda: migrate(latest)
    finally:
        migrate(latest)


def write_conversation(apps, user, *, is_live):
    """Two finished turns of 9 tokens, one that failed without a word, and perhaps one that is being answered."""
    chat = apps.get_model("chat", "AgentChat").objects.create(
        chat_id=new_uuid(), user_id=user.pk, turn_count=3 + is_live, message_count=5, tokens_total=18
    )
    for turn_no in range(1, 4 + is_live):
        is_now = turn_no == 4
        failed = turn_no == 3
        at = NOW + timedelta(minutes=turn_no)
        run = apps.get_model("chat", "ChatRun").objects.create(
            id=new_uuid(),
            chat=chat,
            user_id=user.pk,
            turn_no=turn_no,
            state="running" if is_now else "failed" if failed else "finished",
            is_live=True if is_now else None,
            input_text=f"Frage “{turn_no}” \\ '",
            output_text="" if is_now or failed else f"Antwort {turn_no}",
            model="worker",
            owner="web-1",
            error_code="model_timeout" if failed else "",
            total_tokens=0 if is_now or failed else 9,
            lease_until=at + timedelta(days=10_000) if is_now else None,
            created_at=at,
            finished_at=None if is_now else at,
        )
        for role in ("user",) if is_now or failed else ("user", "assistant"):
            apps.get_model("chat", "ChatHistory").objects.create(
                chat=chat,
                user_id=user.pk,
                role=role,
                message_content="text",
                tokens_consumed=9 if role == "assistant" else 0,
                source_event_id=f"{run.id}:{role}",
                run_id=run.id,
                created_at=at,
            )
    return chat.chat_id


@pytest.mark.parametrize("is_live", [False, True])
def test_conversations_from_before_get_their_timeline_and_their_ledger(alice, earlier, is_live):
    apps, migrate_forth = earlier
    conversation_id = write_conversation(apps, alice, is_live=is_live)
    empty = apps.get_model("chat", "AgentChat").objects.create(chat_id=new_uuid(), user_id=alice.pk)
    alice.token_usage = 18
    alice.save()

    migrate_forth()

    shown = queries.list_timeline(user_id=alice.pk, conversation_id=conversation_id, limit=100)
    expected = [
        (1, "user_text", "Frage “1” \\ '", 0),
        (2, "assistant_text", "Antwort 1", 9),
        (3, "user_text", "Frage “2” \\ '", 0),
        (4, "assistant_text", "Antwort 2", 9),
        (5, "user_text", "Frage “3” \\ '", 0),
        (6, "assistant_text", "", 0),
        (7, "user_text", "Frage “4” \\ '", 0),
    ]
    assert [(item.seq, item.kind, item.content, item.tokens_consumed) for item in shown] == expected[: 6 + is_live]
    failed = shown[5].payload
    assert (failed["state"], failed["error_code"], failed["variant_no"]) == ("failed", "model_timeout", 1)
    assert AgentChat.objects.get(chat_id=conversation_id).timeline_seq == 6 + is_live
    assert AgentChat.objects.get(pk=empty.pk).timeline_seq == 0
    assert list(ChatRun.objects.order_by("turn_no").values_list("has_spoken", flat=True))[:3] == [True, True, False]
    assert [entry.total_tokens for entry in TokenLedgerEntry.objects.all()] == [9, 9]
    assert list(check_ledger()) == []


def test_conversation_from_before_goes_on(alice, earlier):
    apps, migrate_forth = earlier
    conversation_id = write_conversation(apps, alice, is_live=True)
    migrate_forth()
    alice.token_usage = 18
    alice.save()
    live: StartedRun = started_run(run=ChatRun.objects.select_related("chat").get(is_live=True))

    operations.finish_run(run=live, result=result("At last"), now=NOW)
    again = ask(alice, "More", conversation_id=conversation_id)
    operations.finish_run(run=again, result=result("Yes"), now=NOW)
    drain()

    rows = AgentTimelineEvent.objects.order_by("seq").values_list("seq", "content")
    assert list(rows)[6:] == [(7, "Frage “4” \\ '"), (8, "At last"), (9, "More"), (10, "Yes")]
    assert list(check_ledger()) == []
