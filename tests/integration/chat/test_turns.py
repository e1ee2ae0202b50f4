"""How a run begins: what is written together, what is refused, and that variants and continuations keep the books."""

from datetime import UTC, datetime, timedelta

import pytest
from django.db import IntegrityError, transaction

from chat import operations
from chat.contracts import ChatStatus, RunState
from chat.models import AgentChat, ChatRun
from chat.operations import ConversationNotFound, RunAlreadyLive, messages
from outbox.models import OutboxMessage
from smartflow.kernel.ids import new_uuid
from tests.integration.chat.turns import LEASE_SECONDS, ask, events, talk

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)


def later(seconds):
    return NOW + timedelta(seconds=seconds)


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

    monkeypatch.setattr(messages, "append_event", fail)

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
