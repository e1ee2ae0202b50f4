"""How a run begins: something the user says, another variant of the last answer, or going on where one was cut."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from django.conf import settings
from django.db import IntegrityError, transaction

from chat.contracts import ChatStatus, Role, RunKind, RunSnapshot, RunState, StartedRun, TimelineKind, TurnRequest
from chat.memory.budget import REQUEST_OVERHEAD_TOKENS, estimate_text
from chat.models import AgentChat, ChatRun
from chat.operations.conversations import lock_own
from chat.operations.messages import append_question
from chat.operations.ownership import read_summary
from chat.operations.timeline import NewEntry, write_entries
from chat.operations.variants import RunNotRepeatable, check_quiet, lock_last
from chat.queries import ConversationNotFound, snapshot_of
from outbox.database_errors import repeat_on_conflict
from smartflow.accounts.quota import hold_tokens
from smartflow.api.idempotency_records import KeyReused
from smartflow.api.rows import execute, fetch, insert_row, moment
from smartflow.kernel.errors import Conflict, DomainError, Unavailable
from smartflow.kernel.ids import named_uuid, new_uuid
from smartflow.kernel.text import noop as _

# Of the output, as long as nothing is known of the conversation's answers; the hold grows while the answer streams.
FIRST_OUTPUT_GUESS_TOKENS = 500
MOST_OUTPUT_GUESS_TOKENS = 4000
# Behind the time that a run may wait for an executor, which renews the hold.
HOLD_SECONDS = 600
_COUNT_LIVE = "SELECT COUNT(*) FROM chat_runs WHERE user_id = %s AND is_live = 1"
_TOUCH = (
    "UPDATE agent_chats SET turn_count = %s, timeline_seq = %s, last_message_at = %s, status = %s, updated_at = %s"
    " WHERE id = %s"
)
# What the model is told instead of something the user said.
CONTINUE_NUDGE = "Continue exactly where your last answer stops. Do not repeat any of it."


class RunNotContinuable(Conflict):
    """Only the last answer can be continued, and only when it did not come to its end."""

    code = "40913"
    message = _("Only the last answer can be continued, and only when it was interrupted.")


class TooManyRunsOfUser(Unavailable):
    """The user has as many live runs as one may have."""

    code = "40033"
    message = _("You have several answers under way already. Wait for one of them to finish.")


@dataclass(frozen=True, kw_only=True)
class Claimant:
    """Who executes the run that is begun; no owner: it waits for an executor."""

    owner: str
    lease_seconds: float


@dataclass(frozen=True, kw_only=True)
class _NewRun:
    """What tells the three ways to begin apart."""

    kind: RunKind
    turn_no: int
    message: str
    model: str
    thinking: str
    language: str
    request_id: str
    variant_no: int = 1
    is_current: bool = True
    name: str = ""  # of which its id is made; random without one


def begin_turn(*, request: TurnRequest, owner: str, lease_seconds: float, now: datetime) -> StartedRun | RunSnapshot:
    """
    Accept a user's message: the conversation (opened when none is named), the run, its hold and the message's event.

    Transaction: one; when it fails nothing exists and nothing was asked of the model.
    Twice:       with the same key, at once too, the run that it began is returned as it is now; without, another turn.
    Raises:      ConversationNotFound; RunAlreadyLive; TooManyRunsOfUser; QuotaExceeded; KeyReused.
    """
    claimant = Claimant(owner=owner, lease_seconds=lease_seconds)
    try:
        return repeat_on_conflict(lambda: _begin_turn(request, claimant, now))
    except (DomainError, IntegrityError):
        # Whatever a repetition meets, the first stands in its way: nothing is asked before a turn that is new.
        begun = _find_begun(request)
        if begun is None:
            raise
        return begun


def begin_variant(
    *, user_id: int, run_id: str, request_id: str, language: str, claimant: Claimant, now: datetime
) -> StartedRun:
    """
    Answer the last question once more. The earlier answers stay, and the one that counts goes on counting until the
    new one has ended with something said.

    Transaction: one. Raises: RunNotFound; RunNotRepeatable; RunAlreadyLive; TooManyRunsOfUser; QuotaExceeded.
    """

    def begin() -> StartedRun:
        with transaction.atomic():
            chat, run = lock_last(user_id=user_id, run_id=run_id, not_last=RunNotRepeatable)
            variants = ChatRun.objects.filter(chat__chat_id=chat.chat_id, turn_no=run.turn_no)
            latest = variants.order_by("-variant_no").values_list("variant_no", flat=True)[0]
            new = _NewRun(
                kind=RunKind.REGENERATE,
                turn_no=run.turn_no,
                variant_no=latest + 1,
                is_current=False,
                message=run.input_text,
                model=run.model,
                thinking=run.thinking,
                language=language,
                request_id=request_id,
            )
            return _insert_run(chat, new, claimant, now)

    return repeat_on_conflict(begin)


def begin_continuation(
    *, user_id: int, run_id: str, request_id: str, language: str, claimant: Claimant, now: datetime
) -> StartedRun:
    """
    Let the assistant go on where its last answer was interrupted or stopped.

    Transaction: one. Raises: RunNotFound; RunNotContinuable; RunAlreadyLive; TooManyRunsOfUser; QuotaExceeded.
    """

    def begin() -> StartedRun:
        with transaction.atomic():
            chat, run = lock_last(user_id=user_id, run_id=run_id, not_last=RunNotContinuable)
            if run.state == RunState.FINISHED or not run.output_text or not run.is_current:
                raise RunNotContinuable
            chat.turn_count += 1
            _touch(chat, now)
            new = _NewRun(
                kind=RunKind.CONTINUE,
                turn_no=chat.turn_count,
                message=CONTINUE_NUDGE,
                model=run.model,
                thinking=run.thinking,
                language=language,
                request_id=request_id,
            )
            return _insert_run(chat, new, claimant, now)

    return repeat_on_conflict(begin)


def _begin_turn(request: TurnRequest, claimant: Claimant, now: datetime) -> StartedRun:
    with transaction.atomic():
        chat = _open_conversation(request, now) if request.conversation_id is None else _go_on(request, now)
        new = _NewRun(
            kind=RunKind.TURN,
            turn_no=chat.turn_count,
            message=request.message,
            model=request.model,
            thinking=request.thinking,
            language=request.language,
            request_id=request.request_id,
            name=_name("run", request),
        )
        started = _insert_run(chat, new, claimant, now)
        payload = {"run_id": started.run_id, "turn_no": started.turn_no}
        said = NewEntry(
            kind=TimelineKind.USER_TEXT,
            role=Role.USER,
            content=request.message,
            payload=payload,
            run_id=started.run_id,
        )
        write_entries(chat=chat, entries=[said], now=now)
        append_question(run=started, now=now)
    return replace(started, history_seq=chat.timeline_seq - 1)


def _insert_run(chat: AgentChat, new: _NewRun, claimant: Claimant, now: datetime) -> StartedRun:
    """Write the run and hold its tokens. The hold locks the user's window, so the count of live runs is exact."""
    run_id = named_uuid(new.name) if new.name else new_uuid()
    guess = _guess_tokens(chat, new.message)
    hold_tokens(
        user_id=chat.user_id,
        hold_id=run_id,
        tokens=guess,
        expires_at=now + timedelta(seconds=settings.CHAT_QUEUE_SECONDS + HOLD_SECONDS),
        now=now,
    )
    (live,) = fetch(_COUNT_LIVE, chat.user_id) or (0,)
    if live >= settings.CHAT_MAX_LIVE_RUNS_OF_USER:
        raise TooManyRunsOfUser(retry_after_seconds=5)
    has_owner = bool(claimant.owner)
    insert_row(
        ChatRun,
        id=run_id,
        chat_id=chat.chat_id,
        user_id=chat.user_id,
        kind=new.kind,
        turn_no=new.turn_no,
        variant_no=new.variant_no,
        is_current=new.is_current,
        input_text=new.message,
        model=new.model,
        thinking=new.thinking,
        language=new.language,
        owner=claimant.owner,
        epoch=1 if has_owner else 0,
        held_tokens=guess,
        lease_until=now + timedelta(seconds=claimant.lease_seconds) if has_owner else now,
        request_id=new.request_id,
        created_at=now,
    )
    return StartedRun(
        run_id=run_id,
        conversation_id=chat.chat_id,
        user_id=chat.user_id,
        turn_no=new.turn_no,
        variant_no=new.variant_no,
        kind=new.kind,
        model=new.model,
        thinking=new.thinking,
        message=new.message,
        system_prompt=chat.system_prompt or "",
        owner=claimant.owner,
        epoch=1 if has_owner else 0,
        attempt=1,
        request_id=new.request_id,
        language=new.language,
        held_tokens=guess,
        summary=read_summary(stored=chat.compaction_summary),
        summary_covers_turn=chat.compaction_watermark,
    )


def _find_begun(request: TurnRequest) -> RunSnapshot | None:
    """Return the run that was begun with the request's key before."""
    name = _name("run", request)
    run = ChatRun.objects.select_related("chat").filter(id=named_uuid(name)).first() if name else None
    if run is None:
        return None
    if run.chat.deleted_at is not None:
        raise ConversationNotFound
    is_same = (request.message, request.model, request.thinking) == (run.input_text, run.model, run.thinking)
    if not is_same or request.conversation_id not in (None, run.chat_id):
        raise KeyReused(fields={"X-Idempotency-Key": KeyReused.message})
    return snapshot_of(run=run)


def _name(what: str, request: TurnRequest) -> str:
    """Return what the turn's key names for this user: of the same name there is one id. Empty without a key."""
    return f"{what}:{request.user_id}:{request.key}" if request.key else ""


def _guess_tokens(chat: AgentChat, message: str) -> int:
    """Guess what a run will cost: what the model was sent last time, what is said now, and a bounded answer."""
    stats = chat.context_token_stats or {}
    earlier = int(stats.get("total", 0)) + int(stats.get("answer", 0))
    answer = min(MOST_OUTPUT_GUESS_TOKENS, max(FIRST_OUTPUT_GUESS_TOKENS, 2 * int(stats.get("answer", 0))))
    return earlier + estimate_text(message) + REQUEST_OVERHEAD_TOKENS + answer


def _open_conversation(request: TurnRequest, now: datetime) -> AgentChat:
    """Insert a conversation whose first turn, and the entry of its question, are counted already."""
    name = _name("conversation", request)
    values = {
        "chat_id": named_uuid(name) if name else new_uuid(),
        "user_id": request.user_id,
        "model": request.model,
        "turn_count": 1,
        "timeline_seq": 1,
        "last_message_at": now,
        "created_at": now,
        "updated_at": now,
    }
    return AgentChat(id=insert_row(AgentChat, **values), **values)


def _go_on(request: TurnRequest, now: datetime) -> AgentChat:
    """Count a turn and its question's entry of a conversation, holding its row, unless a run of it is live."""
    chat = lock_own(user_id=request.user_id, conversation_id=request.conversation_id or "")
    check_quiet(chat=chat)
    chat.turn_count += 1
    chat.timeline_seq += 1
    _touch(chat, now)
    return chat


def _touch(chat: AgentChat, now: datetime) -> None:
    execute(_TOUCH, chat.turn_count, chat.timeline_seq, moment(now), ChatStatus.ACTIVE, moment(now), chat.pk)
