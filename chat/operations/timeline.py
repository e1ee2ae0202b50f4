"""The timeline: one rising seq a conversation, given out under its row's lock, by the writer of what is told."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db import transaction

from chat.contracts import Role, StartedRun, TimelineKind
from chat.models import AgentChat, AgentTimelineEvent
from chat.operations.conversations import lock_conversation
from chat.operations.ownership import SUMMARY_STAGE, RunNotOwned, owned
from smartflow.api.rows import execute, insert_rows

SUMMARY_VERSION = 1
_COUNT = "UPDATE agent_chats SET timeline_seq = %s WHERE id = %s"


@dataclass(frozen=True, kw_only=True)
class NewEntry:
    """An entry to append."""

    kind: TimelineKind
    role: Role
    content: str = ""
    payload: dict[str, Any] = field(default_factory=dict)
    tokens_consumed: int = 0
    run_id: str = ""


def append_timeline(*, chat: AgentChat, entries: Sequence[NewEntry], now: datetime) -> None:
    """
    Append entries to a conversation's timeline.

    Transaction: the caller's, which holds the conversation's row: two writers never get the same seq.
    Order:       as given. Twice: appends twice; the caller's fence keeps it from happening.
    """
    chat.timeline_seq += len(entries)
    write_entries(chat=chat, entries=entries, now=now)
    execute(_COUNT, chat.timeline_seq, chat.pk)


def write_entries(*, chat: AgentChat, entries: Sequence[NewEntry], now: datetime) -> None:
    """Do the same for a caller who has counted the entries in `chat.timeline_seq`, and writes that himself."""
    rows = [
        {
            "chat_id": chat.chat_id,
            "user_id": chat.user_id,
            "seq": seq,
            "kind": entry.kind,
            "role": entry.role,
            "content": entry.content,
            "payload": entry.payload,
            "tokens_consumed": entry.tokens_consumed,
            "run_id": entry.run_id,
            "created_at": now,
        }
        for seq, entry in enumerate(entries, start=chat.timeline_seq - len(entries) + 1)
    ]
    insert_rows(AgentTimelineEvent, rows)


def save_compaction(*, run: StartedRun, summary: str, covers_turn: int, tokens: int, now: datetime) -> None:
    """
    Keep a summary of the turns up to `covers_turn` for the model, and mark the place in the timeline.

    Transaction: one. The turns themselves stay as they are.
    Twice:       a summary that covers no more than the one there is changes nothing.
    Raises:      RunNotOwned.
    """
    with transaction.atomic():
        chat = lock_conversation(conversation_id=run.conversation_id)
        if chat is None or not owned(run=run).exists():
            raise RunNotOwned(run_id=run.run_id)
        if chat.compaction_watermark >= covers_turn:
            return
        stages = {SUMMARY_STAGE: {"summary": summary, "watermark": covers_turn}}
        AgentChat.objects.filter(pk=chat.pk).update(
            compaction_summary=json.dumps({"version": SUMMARY_VERSION, "stages": stages}, ensure_ascii=False),
            compaction_watermark=covers_turn,
        )
        payload = {"covers_turn": covers_turn, "run_id": run.run_id}
        marker = NewEntry(
            kind=TimelineKind.CONTEXT_COMPACTED,
            role=Role.ASSISTANT,
            content=summary,
            payload=payload,
            tokens_consumed=tokens,
            run_id=run.run_id,
        )
        append_timeline(chat=chat, entries=[marker], now=now)
