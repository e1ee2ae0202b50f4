"""How a run ends: by its owner, by a stop, or because its owner died. Always once, with its tokens."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Q, QuerySet, Value
from django.db.models.functions import Coalesce

from chat.contracts import Role, RunKind, RunResult, RunState, StartedRun, TimelineKind
from chat.memory.budget import estimate_text
from chat.models import AgentChat, ChatRun
from chat.operations.conversations import lock_conversations
from chat.operations.messages import append_message
from chat.operations.ownership import MOST_ATTEMPTS, RunNotOwned, owned
from chat.operations.timeline import NewEntry, append_timeline
from chat.queries import RunNotFound
from smartflow.accounts.contracts import ModelCall
from smartflow.accounts.quota import settle_hold

# The code of a run whose executor died; what it had said is kept.
INTERRUPTED = "run_interrupted"
NOT_STARTED = "run_not_started"
# How long a run that lost its owner before the first word waits for another, and a new one for its first.
ORPHAN_WAIT_SECONDS = 8.0


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
    with transaction.atomic():
        chat = lock_conversations(conversation_ids=[run.conversation_id])[run.conversation_id]
        _end(chat, owned(run=run), run.run_id, result, now)
        return chat.timeline_seq


def request_stop(*, user_id: int, run_id: str, now: datetime) -> RunState:
    """
    Ask for a run's end, from anywhere, and return its state; one that nobody executes ends at once.

    Transaction: one. Its owner is told by the flag in the row; a hint may reach it earlier.
    Twice:       no effect; a run that has ended stays as it ended.
    Raises:      RunNotFound.
    """
    with transaction.atomic():
        run = ChatRun.objects.filter(id=run_id, user_id=user_id).only("id", "chat_id").first()
        if run is None:
            raise RunNotFound
        chat = lock_conversations(conversation_ids=[run.chat_id]).get(run.chat_id)
        if chat is None or chat.deleted_at is not None:
            raise RunNotFound
        live = ChatRun.objects.filter(id=run_id, is_live=True)
        live.filter(stop_requested_at=None).update(stop_requested_at=now)
        run.refresh_from_db()
        if run.is_live and (not run.owner or (run.lease_until is not None and run.lease_until < now)):
            result = _result_of_abandoned(run, state=RunState.STOPPED, error_code="")
            _end(chat, live, run_id, result, now)
            return RunState.STOPPED
        return RunState(run.state)


def release_run(*, run: StartedRun, now: datetime) -> bool:
    """
    Give a run that has said nothing back, so that another executor takes it at once; tell whether it was given back.

    Transaction: one guarded UPDATE.
    """
    silent = owned(run=run).filter(has_spoken=False)
    return bool(silent.update(owner="", state=RunState.QUEUED, lease_until=now))


def list_orphaned_runs(*, now: datetime, limit: int) -> list[str]:
    """Return live runs that nobody will execute any more, the longest waiting first, through idx_run_live_lease."""
    orphans = ChatRun.objects.filter(_orphaned(now)).order_by("lease_until", "id")
    return list(orphans.values_list("id", flat=True)[:limit])


def end_orphaned_run(*, run_id: str, recovered: RecoveredText | None = None, now: datetime) -> bool:
    """
    End a run whose executor died, keeping what was said; tell whether it was ended here.

    Transaction: one, fenced by the lease and by what the row had said: a run whose executor came back is left alone.
    """
    run = ChatRun.objects.filter(_orphaned(now), id=run_id).first()
    if run is None:
        return False
    if recovered is not None and recovered.text.startswith(run.output_text):
        run.output_text, run.output_events = recovered.text, list(recovered.events)
    same = ChatRun.objects.filter(_orphaned(now), owner=run.owner, epoch=run.epoch)
    code = INTERRUPTED if run.epoch else NOT_STARTED
    state = RunState.STOPPED if run.stop_requested_at else RunState.FAILED
    result = _result_of_abandoned(run, state=state, error_code="" if run.stop_requested_at else code)
    try:
        with transaction.atomic():
            chat = lock_conversations(conversation_ids=[run.chat_id])[run.chat_id]
            _end(chat, same, run.id, result, now)
    except RunNotOwned:
        return False
    return True


def end_orphaned_runs(*, now: datetime, limit: int = 100) -> int:
    """End the runs that list_orphaned_runs names, each in its own transaction; return how many."""
    return sum(end_orphaned_run(run_id=run_id, now=now) for run_id in list_orphaned_runs(now=now, limit=limit))


def _orphaned(now: datetime) -> Q:
    """Say which runs are beyond hope: spoken and without an owner, or not taken up by anybody in time."""
    waited = now - timedelta(seconds=ORPHAN_WAIT_SECONDS)
    never_owned = Q(epoch=0, lease_until__lt=now - timedelta(seconds=settings.CHAT_QUEUE_SECONDS))
    beyond = Q(has_spoken=True) | Q(attempt__gt=MOST_ATTEMPTS) | Q(stop_requested_at__isnull=False)
    return Q(is_live=True, lease_until__lt=now) & (beyond | Q(epoch__gt=0, lease_until__lt=waited) | never_owned)


def _result_of_abandoned(run: ChatRun, *, state: RunState, error_code: str) -> RunResult:
    """Return how a run ends that its owner does not end: charged by an estimate when something was said."""
    calls: tuple[ModelCall, ...] = ()
    if run.output_text:
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


def _end(chat: AgentChat, guard: QuerySet[ChatRun], run_id: str, result: RunResult, now: datetime) -> None:
    """Write a run's end. The caller holds the conversation. Raises: RunNotOwned when the guard finds nothing."""
    calls = result.calls
    ended = guard.filter(id=run_id).update(
        state=result.state,
        is_live=None,
        output_text=result.text,
        output_events=list(result.events),
        error_code=result.error_code,
        retry_after_seconds=result.retry_after_seconds,
        prompt_tokens=sum(call.input_tokens for call in calls),
        completion_tokens=sum(call.output_tokens for call in calls),
        total_tokens=result.total_tokens,
        is_usage_estimated=any(call.is_estimated for call in calls),
        lease_until=None,
        started_at=Coalesce("started_at", Value(now)),
        finished_at=now,
    )
    if not ended:
        raise RunNotOwned(run_id=run_id)
    run = ChatRun.objects.get(id=run_id)
    append_timeline(chat=chat, entries=[_answer_entry(run)], now=now)
    settle_hold(user_id=run.user_id, hold_id=run.id, tokens=result.total_tokens, now=now)
    if result.text or calls:
        append_message(run=_Ended(run), role=Role.ASSISTANT, text=result.text, calls=calls, now=now)
    _note_answer(chat, run, result, now)


def _note_answer(chat: AgentChat, run: ChatRun, result: RunResult, now: datetime) -> None:
    """Let a title be made after the first whole answer, and remember how long the answer was."""
    values: dict[str, object] = {}
    if result.state == RunState.FINISHED and not (chat.title or "").strip() and not chat.title_attempts:
        values["title_due_at"] = now
    if run.completion_tokens:
        values["context_token_stats"] = {**(chat.context_token_stats or {}), "answer": run.completion_tokens}
    if values:
        AgentChat.objects.filter(pk=chat.pk).update(**values)


class _Ended:
    """A row as the message's event needs it."""

    def __init__(self, run: ChatRun) -> None:
        self.run_id, self.conversation_id = run.id, run.chat_id
        self.user_id, self.request_id = run.user_id, run.request_id


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
