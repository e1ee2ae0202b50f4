"""Every read of conversations. What users ask takes their id: another user's conversation does not exist here."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime

from django.db.models import QuerySet
from django.db.models.functions import Substr

from chat.contracts import ContextStats, HistoryMessage, Role, RunSnapshot, RunState, TimelineItem, TimelineKind
from chat.models import AgentChat, AgentStateSnapshot, AgentTimelineEvent, ChatRun
from smartflow.api.index_hints import read_by
from smartflow.kernel.errors import NotFound
from smartflow.kernel.text import noop as _

# Up to here the number of a user's conversations is counted; larger costs more on every page of a list that long.
MOST_COUNTED = 10_000
_ITEM = tuple(field.name for field in fields(TimelineItem))
# What of a conversation no list shows; a summary may be long.
_NOT_SHOWN = ("system_prompt", "compaction_summary", "context_token_stats")


class ConversationNotFound(NotFound):
    """No such conversation for this user: it never was, was deleted, or is somebody else's."""

    code = "40401"
    message = _("This conversation does not exist.")


class RunNotFound(NotFound):
    """No such run for this user."""

    code = "40402"
    message = _("This answer does not exist.")


@dataclass(frozen=True, kw_only=True)
class VariantView:
    """One of the answers to a question."""

    run_id: str
    variant_no: int
    is_current: bool
    state: str
    content: str
    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class StateSnapshot:
    """The assistant's state after its last run in a conversation."""

    phase: str
    snapshot_json: str
    revision: int


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
    live_run_id: str | None = None  # shown for one conversation, not in lists


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
    chat = _own(user_id).filter(chat_id=conversation_id).defer(*_NOT_SHOWN).first()
    if chat is None:
        return None
    live = ChatRun.objects.filter(chat__chat_id=conversation_id, is_live=True).values_list("id", flat=True).first()
    return replace(_view(chat), live_run_id=live)


def list_conversations(*, user_id: int, page: int, page_size: int, status: str = "") -> ConversationPage:
    """
    Return one page, the latest message first; `status` "" means all that are not deleted.

    Shape: `total` is exact up to MOST_COUNTED and stays there; pages go on behind it.
    Plan:  idx_user_shown alone finds and counts, however many are deleted; rows are read of the page only.
    """
    own = _own(user_id)
    if status:
        own = own.filter(status=status)
    start = (page - 1) * page_size
    shown = read_by(own, index="idx_user_shown")
    ids = list(shown.order_by("-last_message_at", "-id").values_list("pk", flat=True)[start : start + page_size + 1])
    chats = AgentChat.objects.defer(*_NOT_SHOWN).in_bulk(ids[:page_size])
    return ConversationPage(
        list=[_view(chats[pk]) for pk in ids[:page_size]],
        page=page,
        page_size=page_size,
        total=_total(own, page, start + len(ids), page_size),
        has_more=len(ids) > page_size,
    )


def _total(own: QuerySet[AgentChat], page: int, seen: int, page_size: int) -> int:
    """Count the user's conversations; the first page of a few has counted them already."""
    if page == 1 and seen <= page_size:
        return seen
    return own.order_by().values("user_id")[:MOST_COUNTED].count()


def list_timeline(
    *, user_id: int, conversation_id: str, before_seq: int | None = None, after_seq: int | None = None, limit: int
) -> list[TimelineItem] | None:
    """
    Return entries of a conversation, oldest first, or None when it is not the user's.

    Shape: the newest `limit` before `before_seq`, or the first `limit` behind `after_seq`, or just the newest. What was
           committed a moment ago is there, whether or not a consumer is up; a live run's answer comes by its events.
    Plan:  uk_timeline_seq, either way; it reads what it shows. Asked for whole rows before an entry, MariaDB walks
           there from the end of the conversation; asked for ids, it does not.
    """
    if not _own(user_id).filter(chat_id=conversation_id).exists():
        return None
    entries = AgentTimelineEvent.objects.filter(chat__chat_id=conversation_id)
    if after_seq is not None:
        return _items(entries.filter(seq__gt=after_seq).order_by("seq")[:limit])
    if before_seq is not None:
        ids = entries.filter(seq__lt=before_seq).order_by("-seq").values_list("pk", flat=True)[:limit]
        entries = AgentTimelineEvent.objects.filter(pk__in=list(ids))
    return _items(entries.order_by("-seq")[:limit])[::-1]


def list_answered_turns(
    *, user_id: int, conversation_id: str, before_turn: int, limit: int, after_turn: int = 0
) -> list[tuple[HistoryMessage, HistoryMessage]]:
    """
    Return the newest turns between both that have an answer, or a part of one, oldest first; of variants the current.
    """
    turns = (
        ChatRun.objects.filter(
            chat__chat_id=conversation_id,
            user_id=user_id,
            turn_no__gt=after_turn,
            turn_no__lt=before_turn,
            is_current=True,
        )
        .exclude(output_text="")
        .order_by("-turn_no")
        .values_list("input_text", "output_text")[:limit]
    )
    return [
        (HistoryMessage(role=Role.USER, content=asked), HistoryMessage(role=Role.ASSISTANT, content=said))
        for asked, said in reversed(turns)
    ]


def find_answered_turn(*, user_id: int, conversation_id: str, before_turn: int, newer_count: int) -> int | None:
    """Return the number of the answered turn that has so many newer ones before `before_turn`; None without one."""
    turns = ChatRun.objects.filter(
        chat__chat_id=conversation_id, user_id=user_id, turn_no__lt=before_turn, is_current=True
    ).exclude(output_text="")
    numbers = turns.order_by("-turn_no").values_list("turn_no", flat=True)
    return next(iter(numbers[newer_count : newer_count + 1]), None)


def find_last_outcome(*, user_id: int, conversation_id: str, before_turn: int) -> RunState | None:
    """Return how the last turn before this one ended; None without one. The state's snapshot may be behind by now."""
    last = ChatRun.objects.filter(
        chat__chat_id=conversation_id, user_id=user_id, turn_no__lt=before_turn, is_current=True
    )
    state = last.order_by("-turn_no").values_list("state", flat=True).first()
    return RunState(state) if state else None


def list_latest_messages(*, conversation_id: str, limit: int, most_characters: int) -> list[HistoryMessage]:
    """
    Return the start of each of the newest messages, oldest first; whoever asks has the conversation's id from its row.

    Plan: uk_timeline_seq backwards; what is longer than `most_characters` stays in the database.
    """
    said = (
        AgentTimelineEvent.objects.filter(
            chat__chat_id=conversation_id, kind__in=[TimelineKind.USER_TEXT, TimelineKind.ASSISTANT_TEXT]
        )
        .exclude(content="")
        .order_by("-seq")
        .values_list("role", Substr("content", 1, most_characters))[:limit]
    )
    return [HistoryMessage(role=Role(role), content=start) for role, start in reversed(said)]


def find_run(*, user_id: int, run_id: str) -> RunSnapshot | None:
    """Return a run of the user's as the database has it, or None: unknown, deleted, or somebody else's."""
    run = ChatRun.objects.filter(id=run_id, user_id=user_id, chat__deleted_at__isnull=True).first()
    return snapshot_of(run=run) if run else None


def list_followed_runs(*, run_ids: Sequence[str]) -> list[RunSnapshot]:
    """Return runs that readers of this process follow; whoever asks has checked that they may see them."""
    return [snapshot_of(run=run) for run in ChatRun.objects.filter(id__in=run_ids).order_by("id")]


def snapshot_of(*, run: ChatRun) -> RunSnapshot:
    """Return a run's row as a plain value."""
    return RunSnapshot(
        run_id=run.id,
        conversation_id=run.chat_id,
        user_id=run.user_id,
        model=run.model,
        attempt=run.attempt,
        state=RunState(run.state),
        text=run.output_text,
        events=tuple(run.output_events),
        error_code=run.error_code,
        retry_after_seconds=run.retry_after_seconds,
        created_at=run.created_at,
    )


def list_variants(*, user_id: int, run_id: str) -> list[VariantView] | None:
    """Return all answers to the question that the run answers, oldest first, or None when the run is not the user's."""
    run = ChatRun.objects.filter(id=run_id, user_id=user_id, chat__deleted_at__isnull=True).first()
    if run is None:
        return None
    variants = ChatRun.objects.filter(chat__chat_id=run.chat_id, turn_no=run.turn_no).order_by("variant_no")
    return [
        VariantView(
            run_id=variant.id,
            variant_no=variant.variant_no,
            is_current=variant.is_current,
            state=variant.state,
            content=variant.output_text,
            created_at=variant.created_at,
        )
        for variant in variants
    ]


def find_context_stats(*, user_id: int, conversation_id: str) -> ContextStats | None:
    """
    Return what the model was last sent in a conversation, by part; None when it was sent nothing yet.

    Raises: ConversationNotFound when it is not the user's.
    """
    row = _own(user_id).filter(chat_id=conversation_id).values_list("context_token_stats", flat=True)
    if not row:
        raise ConversationNotFound
    stored = row[0] or {}
    if "total" not in stored:
        return None
    return ContextStats(**{name: int(stored[name]) for name in ("msg0", "msg1", "msg2", "msg3", "total", "budget")})


def find_state_snapshot(*, user_id: int, conversation_id: str) -> StateSnapshot | None:
    """Return the assistant's newest state in a conversation of the user's, or None when there is none."""
    row = AgentStateSnapshot.objects.filter(conversation_id=conversation_id, user_id=user_id).first()
    if row is None:
        return None
    return StateSnapshot(phase=row.phase, snapshot_json=row.snapshot_json, revision=row.revision)


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


def _items(entries: QuerySet[AgentTimelineEvent]) -> list[TimelineItem]:
    return [TimelineItem(**values) for values in entries.values(*_ITEM)]
