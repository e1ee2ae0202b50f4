"""Rows for the tests of the admin, written directly: these pages must show every state, however it came about."""

from datetime import timedelta

from django.contrib.auth.models import Permission
from django.test import Client

from chat.contracts import RunState
from chat.models import AgentChat, AgentStateSnapshot, AgentTimelineEvent, ChatHistory, ChatRun
from outbox.models import Status
from smartflow.accounts.models import TokenLedgerEntry, TokenSession, User
from smartflow.kernel.clock import utc_now
from smartflow.kernel.ids import new_uuid
from tests.outbox_rows import new_row

EVENT_TYPE = "chat.history.persist.requested"


def operator_client(*permissions, username="operator"):
    """Return the client of a member of staff who has exactly these permissions (`app.codename`)."""
    user = User.objects.create_user(username, "x", is_staff=True)
    for name in permissions:
        app, codename = name.split(".")
        user.user_permissions.add(Permission.objects.get(content_type__app_label=app, codename=codename))
    client = Client()
    client.force_login(user)
    return client


def make_row(status=Status.PENDING, *, key=None, age_seconds=60, **fields):
    at = utc_now() - timedelta(seconds=age_seconds)
    times = {
        "published_at": at if status in (Status.PUBLISHED, Status.CONSUMED) else None,
        "consumed_at": at if status == Status.CONSUMED else None,
    }
    values = {
        "event_id": new_uuid(),
        "biz_type": EVENT_TYPE,
        "topic": "smartflow.agent.outbox",
        "payload": '{"message": "private words"}',
        "created_at": at,
        "updated_at": at,
    }
    row = new_row(message_key=key or new_uuid(), status=status, **{**values, **times, **fields})
    row.save()
    return row


def make_chat(user, **fields):
    return AgentChat.objects.create(chat_id=new_uuid(), user=user, title="A week", **fields)


def make_run(chat, *, turn_no=1, state=RunState.FINISHED, **fields):
    is_live = state in (RunState.QUEUED, RunState.RUNNING)
    now = utc_now()
    values = {
        "input_text": "private question",
        "output_text": "private answer",
        "model": "worker",
        "owner": "web-1",
        "created_at": now,
        "finished_at": None if is_live else now,
    }
    return ChatRun.objects.create(
        id=new_uuid(),
        chat=chat,
        user=chat.user,
        turn_no=turn_no,
        state=state,
        is_live=True if is_live else None,
        **{**values, **fields},
    )


def make_history(chat, **fields):
    return ChatHistory.objects.create(
        chat=chat,
        user=chat.user,
        message_content="private words",
        role="user",
        source_event_id=new_uuid(),
        run_id=new_uuid(),
        created_at=utc_now(),
        **fields,
    )


def make_timeline_entry(chat, *, seq=1, **fields):
    values = {"kind": "user_text", "role": "user", "content": "private words", "payload": {"of": "private payload"}}
    return AgentTimelineEvent.objects.create(
        chat=chat, user=chat.user, seq=seq, created_at=utc_now(), **{**values, **fields}
    )


def make_snapshot(chat, **fields):
    now = utc_now()
    return AgentStateSnapshot.objects.create(
        conversation_id=chat.chat_id,
        user=chat.user,
        phase="chatting",
        snapshot_json='{"version": 1, "of": "private state"}',
        revision=2,
        created_at=now,
        updated_at=now,
        **fields,
    )


def make_session(user, **fields):
    now = utc_now()
    return TokenSession.objects.create(
        id=new_uuid(),
        user=user,
        refresh_jti=new_uuid(),
        created_at=now,
        refreshed_at=now,
        expires_at=now + timedelta(days=1),
        **fields,
    )


def make_entry(user, **fields):
    values = {"conversation_id": new_uuid(), "run_id": new_uuid(), "purpose": "answer", "model": "gpt-4o-mini"}
    return TokenLedgerEntry.objects.create(
        entry_key=new_uuid(), user=user, total_tokens=10, actor=user, created_at=utc_now(), **values | fields
    )
