"""Every read of conversations. All take the user's id: another user's conversation does not exist here."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db.models import QuerySet

from chat.contracts import HistoryMessage, Role, RunState, TimelineItem
from chat.models import AgentChat, ChatRun

# A page of the timeline, in turns; a turn is a question and its answer.
TIMELINE_TURNS = 200


@dataclass(frozen=True, kw_only=True)
class ConversationView:
    """One conversation as its owner sees it."""

    conversation_id: str
    title: str
    has_title: bool
    message_count: int
    last_message_at: datetime | None
    status: str
    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class ConversationPage:
    """One page of a user's conversations."""

    list: Sequence[ConversationView]
    page: int
    page_size: int
    total: int
    has_more: bool


def find_conversation(*, user_id: int, conversation_id: str) -> ConversationView | None:
    """Return the user's conversation, or None: unknown, deleted, or somebody else's."""
    chat = _own(user_id).filter(chat_id=conversation_id).first()
    return _view(chat) if chat else None


def list_conversations(*, user_id: int, page: int, page_size: int, status: str = "") -> ConversationPage:
    """Return one page, the latest message first; `status` "" means all that are not deleted."""
    own = _own(user_id)
    if status:
        own = own.filter(status=status)
    total = own.count()
    start = (page - 1) * page_size
    chats = own.order_by("-last_message_at", "-id")[start : start + page_size]
    return ConversationPage(
        list=[_view(chat) for chat in chats],
        page=page,
        page_size=page_size,
        total=total,
        has_more=page * page_size < total,
    )


def list_timeline(*, user_id: int, conversation_id: str, before_seq: int | None = None) -> list[TimelineItem] | None:
    """
    Return the newest turns before `before_seq`, oldest first, or None when the conversation is not the user's.

    Read from the runs, so it shows what was committed a moment ago whether or not a consumer is up. A turn's question
    has seq 2n-1 and its answer 2n; the answer of a turn that has just begun may be missing.
    """
    if not _own(user_id).filter(chat_id=conversation_id).exists():
        return None
    runs = ChatRun.objects.filter(chat__chat_id=conversation_id)
    if before_seq is not None:
        runs = runs.filter(turn_no__lt=(before_seq + 1) // 2)
    newest = list(runs.order_by("-turn_no")[:TIMELINE_TURNS])
    return [item for run in reversed(newest) for item in _items(run)]


def list_answered_turns(
    *, user_id: int, conversation_id: str, before_turn: int, limit: int
) -> list[tuple[HistoryMessage, HistoryMessage]]:
    """Return the newest turns before `before_turn` that have an answer, or a part of one, oldest first."""
    turns = (
        ChatRun.objects.filter(chat__chat_id=conversation_id, user_id=user_id, turn_no__lt=before_turn)
        .exclude(output_text="")
        .order_by("-turn_no")
        .values_list("input_text", "output_text")[:limit]
    )
    return [
        (HistoryMessage(role=Role.USER, content=asked), HistoryMessage(role=Role.ASSISTANT, content=said))
        for asked, said in reversed(turns)
    ]


def _own(user_id: int) -> QuerySet[AgentChat]:
    return AgentChat.objects.filter(user_id=user_id, deleted_at__isnull=True)


def _view(chat: AgentChat) -> ConversationView:
    title = chat.title or ""
    return ConversationView(
        conversation_id=chat.chat_id,
        title=title,
        has_title=bool(title.strip()),
        message_count=chat.message_count,
        last_message_at=chat.last_message_at,
        status=chat.status,
        created_at=chat.created_at,
    )


def _items(run: ChatRun) -> list[TimelineItem]:
    asked_seq = run.turn_no * 2 - 1
    asked = TimelineItem(
        id=asked_seq,
        seq=asked_seq,
        kind="user_text",
        role=Role.USER,
        content=run.input_text,
        payload={"run_id": run.id},
        tokens_consumed=0,
        created_at=run.created_at,
    )
    if not run.output_text and run.state in (RunState.QUEUED, RunState.RUNNING):
        return [asked]
    payload: dict[str, object] = {"run_id": run.id, "state": run.state, "model": run.model}
    if run.error_code:
        payload["error_code"] = run.error_code
    answer = TimelineItem(
        id=asked_seq + 1,
        seq=asked_seq + 1,
        kind="assistant_text",
        role=Role.ASSISTANT,
        content=run.output_text,
        payload=payload,
        tokens_consumed=run.total_tokens,
        created_at=run.finished_at or run.started_at or run.created_at,
    )
    return [asked, answer]
