"""How a run ends: by its owner, by a stop, or because its owner died. Always once, with its tokens."""

from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import F, Q, Value
from django.db.models.functions import Coalesce

from chat.contracts import Role, RunKind, RunResult, RunState, StartedRun, TimelineKind
from chat.memory.budget import estimate_text
from chat.models import AgentChat, ChatRun
from chat.operations.conversations import lock_conversation
from chat.operations.messages import append_end
from chat.operations.ownership import MOST_ATTEMPTS, RunNotOwned, WaitingRun, abandoned, list_waiting, lock_owned, owned
from chat.operations.timeline import NewEntry, write_entries
from chat.operations.variants import make_current
from chat.queries import RunNotFound
from outbox.database_errors import repeat_on_conflict
from smartflow.accounts.contracts import ModelCall
from smartflow.accounts.quota import settle_hold
from smartflow.api.rows import execute, json_text, moment

# The code of a run whose executor died; what it had said is kept.
INTERRUPTED = "run_interrupted"
NOT_STARTED = "run_not_started"
# How long a run that lost its owner before the first word waits for another; one that was given back waits a lease
# longer, so that a process that is restarted finds it. A new one waits CHAT_QUEUE_SECONDS for its first.
ORPHAN_WAIT_SECONDS = 8.0
_END = (
    "UPDATE chat_runs SET state = %s, is_live = NULL, output_text = %s, output_events = %s, error_code = %s,"
    " retry_after_seconds = %s, prompt_tokens = %s, completion_tokens = %s, total_tokens = %s, is_usage_estimated = %s,"
    " lease_until = NULL, started_at = COALESCE(started_at, %s), finished_at = %s WHERE id = %s"
)
_NOTE = "UPDATE agent_chats SET timeline_seq = %s, title_due_at = %s, context_token_stats = %s WHERE id = %s"


@dataclass(frozen=True, kw_only=True)
class RecoveredText:
    """What a dead owner's run had said, when somewhere more of it is known than in the database."""

    text: str
    events: tuple[dict[str, Any], ...] = ()


def finish_run(*, run: StartedRun, result: RunResult, now: datetime) -> int:
    """
    End a run: its state, its text, its entry in the timeline, its tokens, and the event of the assistant's message.

    Transaction: one.
    Shape:       the timeline's last seq, which names the conversation's history as it is now.
    Twice:       the second call raises; the event's id is made from the run's, so no second one can exist.
    Raises:      RunNotOwned.
    """

    def finish() -> int:
        with transaction.atomic():
            chat = lock_conversation(conversation_id=run.conversation_id)
            row = lock_owned(run=run)
            assert chat is not None  # a run has one
            _end(chat, row, result, now)
            return chat.timeline_seq

    return repeat_on_conflict(finish)


def request_stop(*, user_id: int, run_id: str, now: datetime) -> RunState:
    """
    Ask for a run's end, from anywhere, and return its state; one that nobody has taken up ends at once.

    Transaction: one. Its owner is told by the flag in the row; a hint may reach it earlier. A dead owner's run is left
                 to the sweep, which looks for what its readers may have seen.
    Twice:       no effect; a run that has ended stays as it ended.
    Raises:      RunNotFound.
    """
    return repeat_on_conflict(lambda: _request_stop(user_id, run_id, now))


def release_run(*, run: StartedRun, is_blank: bool, spent_tokens: int = 0, now: datetime) -> bool:
    """
    Give a run that has said nothing back, so that another executor takes it at once; tell whether it was given back.

    Transaction: one guarded UPDATE. A run that is not blank has told its readers something beside the text: it begins
                 anew as another attempt, whose positions start at 0. What was spent is charged when the run ends.
    """
    silent = owned(run=run).filter(has_spoken=False)
    attempt = run.attempt if is_blank else run.attempt + 1
    given = partial(
        silent.update,
        owner="",
        state=RunState.QUEUED,
        attempt=attempt,
        lease_until=now,
        lost_tokens=F("lost_tokens") + spent_tokens,
        prompt_tokens=0,
    )
    return bool(repeat_on_conflict(given))


def list_orphaned_runs(*, now: datetime, limit: int) -> list[WaitingRun]:
    """Return live runs that nobody will execute any more, the longest waiting first, through idx_run_live_lease."""
    return list_waiting(runs=ChatRun.objects.filter(_orphaned(now)), limit=limit)


def end_orphaned_run(*, run_id: str, recovered: RecoveredText | None = None, now: datetime) -> bool:
    """
    End a run whose executor died, keeping what was said; tell whether it was ended here.

    Transaction: one, fenced by the lease and by what the row had said: a run whose executor came back is left alone.
                 With recovered text the run has spoken, whatever the row says: nobody may execute it anew.
    """
    is_spoken = recovered is not None and bool(recovered.text)
    run = ChatRun.objects.filter(abandoned(now=now) if is_spoken else _orphaned(now), id=run_id).first()
    if run is None:
        return False
    if recovered is not None and recovered.text.startswith(run.output_text):
        run.output_text, run.output_events = recovered.text, list(recovered.events)
    same = ChatRun.objects.filter(abandoned(now=now), owner=run.owner, epoch=run.epoch)
    code = INTERRUPTED if run.epoch else NOT_STARTED
    state = RunState.STOPPED if run.stop_requested_at else RunState.FAILED
    result = _result_of_abandoned(run, state=state, error_code="" if run.stop_requested_at else code)

    def end() -> None:
        with transaction.atomic():
            chat = lock_conversation(conversation_id=run.chat_id)
            row = same.select_for_update().filter(id=run.id).first()
            if chat is None or row is None:
                raise RunNotOwned(run_id=run.id)
            _end(chat, row, result, now)

    try:
        repeat_on_conflict(end)
    except RunNotOwned:
        return False
    return True


def _request_stop(user_id: int, run_id: str, now: datetime) -> RunState:
    with transaction.atomic():
        run = ChatRun.objects.filter(id=run_id, user_id=user_id).only("id", "chat_id").first()
        if run is None:
            raise RunNotFound
        chat = lock_conversation(conversation_id=run.chat_id)
        if chat is None or chat.deleted_at is not None:
            raise RunNotFound
        live = ChatRun.objects.filter(id=run_id, is_live=True)
        # The row is locked from here on, so its owner is still the owner below.
        live.update(stop_requested_at=Coalesce("stop_requested_at", Value(now)))
        run = ChatRun.objects.get(id=run_id)
        if run.is_live and not run.owner:
            _end(chat, run, _result_of_abandoned(run, state=RunState.STOPPED, error_code=""), now)
            return RunState.STOPPED
        return RunState(run.state)


def _orphaned(now: datetime) -> Q:
    """Say which runs are beyond hope: spoken and without an owner, or not taken up by anybody in time."""
    is_beyond = Q(has_spoken=True) | (~Q(owner="") & Q(attempt__gte=MOST_ATTEMPTS)) | Q(stop_requested_at__isnull=False)
    waited = now - timedelta(seconds=ORPHAN_WAIT_SECONDS)
    given_back = waited - timedelta(seconds=settings.CHAT_RUN_LEASE_SECONDS)
    is_stale = (
        (~Q(owner="") & Q(lease_until__lt=waited))
        | Q(owner="", epoch__gt=0, lease_until__lt=given_back)
        | Q(owner="", epoch=0, lease_until__lt=now - timedelta(seconds=settings.CHAT_QUEUE_SECONDS))
        # by a clock that was ahead
        | Q(lease_until__gt=now, created_at__lt=given_back)
    )
    return abandoned(now=now) & (is_beyond | is_stale)


def _result_of_abandoned(run: ChatRun, *, state: RunState, error_code: str) -> RunResult:
    """Return how a run ends that its owner does not end: charged by an estimate when the model was asked."""
    calls: tuple[ModelCall, ...] = ()
    if run.output_text or run.prompt_tokens:
        said = estimate_text(run.output_text)
        calls = (
            ModelCall(
                call_id=f"{run.id}:{run.attempt}:abandoned",
                purpose="answer",
                model=run.model,
                input_tokens=run.prompt_tokens,
                output_tokens=said,
                total_tokens=run.prompt_tokens + said,
                is_estimated=True,
            ),
        )
    return RunResult(
        state=state, text=run.output_text, events=tuple(run.output_events), calls=calls, error_code=error_code
    )


def _end(chat: AgentChat, run: ChatRun, result: RunResult, now: datetime) -> None:
    """Write a run's end. The caller holds the conversation and the run, and has seen that it is the caller's to end."""
    result = replace(result, calls=(*_lost_calls(run), *result.calls))
    run.state, run.is_live = result.state, None
    run.output_text, run.output_events, run.error_code = result.text, list(result.events), result.error_code
    run.total_tokens = result.total_tokens
    execute(
        _END,
        run.state,
        run.output_text,
        json_text(run.output_events),
        run.error_code,
        result.retry_after_seconds,
        sum(call.input_tokens for call in result.calls),
        sum(call.output_tokens for call in result.calls),
        run.total_tokens,
        any(call.is_estimated for call in result.calls),
        moment(now),
        moment(now),
        run.id,
    )
    if run.output_text and not run.is_current:
        make_current(run=run)
    chat.timeline_seq += 1
    write_entries(chat=chat, entries=[_answer_entry(run)], now=now)
    settle_hold(user_id=run.user_id, hold_id=run.id, tokens=result.total_tokens, now=now)
    append_end(run=run, result=result, revision=chat.timeline_seq, now=now)
    _note_answer(chat, result, now)


def _lost_calls(run: ChatRun) -> tuple[ModelCall, ...]:
    """Return what the attempts before the last one cost, which nobody saw a word of, as one call."""
    if not run.lost_tokens:
        return ()
    return (
        ModelCall(
            call_id=f"{run.id}:lost",
            purpose="chat",
            model=run.model,
            input_tokens=run.lost_tokens,
            total_tokens=run.lost_tokens,
            is_estimated=True,
        ),
    )


def _note_answer(chat: AgentChat, result: RunResult, now: datetime) -> None:
    """Count the answer's entry, let a title be made after the first whole answer, and remember how long it was."""
    title_due_at, stats = chat.title_due_at, chat.context_token_stats
    if result.state == RunState.FINISHED and not (chat.title or "").strip() and not chat.title_attempts:
        title_due_at = now
    answer = sum(call.output_tokens for call in result.calls if call.purpose == "answer")
    if result.stats is not None or answer:
        stats = {**(asdict(result.stats) if result.stats is not None else stats or {}), "answer": answer}
    execute(_NOTE, chat.timeline_seq, moment(title_due_at), json_text(stats), chat.pk)


def _answer_entry(run: ChatRun) -> NewEntry:
    payload: dict[str, object] = {
        "run_id": run.id,
        "state": run.state,
        "model": run.model,
        "turn_no": run.turn_no,
        "variant_no": run.variant_no,
    }
    if run.kind != RunKind.TURN:
        payload["kind"] = run.kind
    if run.error_code:
        payload["error_code"] = run.error_code
    return NewEntry(
        kind=TimelineKind.ASSISTANT_TEXT,
        role=Role.ASSISTANT,
        content=run.output_text,
        payload=payload,
        tokens_consumed=run.total_tokens,
        run_id=run.id,
    )
