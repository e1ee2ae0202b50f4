"""Begins and ends turns for tests of chat, through the product's own operations."""

from dataclasses import asdict
from datetime import timedelta

from chat.contracts import Role, RunProgress, RunResult, RunState, StartedRun, TurnRequest
from chat.operations import (
    Claimant,
    begin_continuation,
    begin_turn,
    begin_variant,
    end_orphaned_run,
    finish_run,
    list_orphaned_runs,
    save_progress,
)
from outbox.envelope import decode_stored
from outbox.models import OutboxMessage
from smartflow.accounts.contracts import ModelCall
from smartflow.events import ChatHistoryPersistRequested
from smartflow.kernel.clock import utc_now
from smartflow.kernel.ids import new_uuid

OWNER = "tests:1:0"
LEASE_SECONDS = 15


def ask(user, message="Hello", *, conversation_id=None, now=None, owner=OWNER, key="", model="worker") -> StartedRun:
    """Begin a turn."""
    request = TurnRequest(
        user_id=user.pk,
        message=message,
        conversation_id=conversation_id,
        model=model,
        thinking="auto",
        request_id="req-1",
        key=key,
    )
    return begin_turn(request=request, owner=owner, lease_seconds=LEASE_SECONDS, now=now or utc_now())


def call(total=9, **fields) -> ModelCall:
    """One call of a model."""
    output = min(total, 4)
    return ModelCall(
        **{
            "call_id": new_uuid(),
            "purpose": "answer",
            "model": "worker",
            "input_tokens": total - output,
            "output_tokens": output,
            "total_tokens": total,
            **fields,
        }
    )


def result(text="Hi there", *, state=RunState.FINISHED, error_code="", total=9) -> RunResult:
    """How a run ends."""
    return RunResult(state=state, text=text, calls=(call(total),) if total else (), error_code=error_code)


def answer_event(run, *, tokens=7, role=Role.ASSISTANT, user_id=None, at=None, message="text", call_id=None):
    """The event of a run's answer, its tokens those of one call."""
    return ChatHistoryPersistRequested(
        user_id=user_id or run.user_id,
        conversation_id=run.conversation_id,
        run_id=run.run_id,
        role=role,
        message=message,
        tokens_consumed=tokens,
        occurred_at=(at or utc_now()).isoformat(),
        calls=[asdict(call(tokens, **({"call_id": call_id} if call_id else {})))] if tokens > 0 else [],
    )


def events():
    """Every event that was appended, oldest first."""
    return [decode_stored(row.payload) for row in OutboxMessage.objects.order_by("id")]


def messages():
    """The events of messages among them."""
    return [event for event in events() if event.event_type == ChatHistoryPersistRequested.event_type]


def say(run, text, *, prompt_tokens=0, events=(), now=None) -> frozenset[str]:
    """Let a run's executor save what was said so far; the result names the run if it is lost."""
    progress = RunProgress(text=text, events=tuple(events), prompt_tokens=prompt_tokens)
    return save_progress(saves=[(run, progress)], lease_seconds=LEASE_SECONDS, now=now or utc_now())


def again(user, run_id, *, now=None, owner=OWNER) -> StartedRun:
    """Begin another variant of an answer."""
    return begin_variant(**_named(user, run_id, owner), now=now or utc_now())


def another(user, run_id, *, answer="Or so", now=None) -> StartedRun:
    """Complete another variant of an answer."""
    run = again(user, run_id, now=now)
    finish_run(run=run, result=result(answer), now=now or utc_now())
    return run


def go_on(user, run_id, *, now=None, owner=OWNER) -> StartedRun:
    """Begin the continuation of an answer."""
    return begin_continuation(**_named(user, run_id, owner), now=now or utc_now())


def _named(user, run_id, owner):
    claimant = Claimant(owner=owner, lease_seconds=LEASE_SECONDS)
    return {"user_id": user.pk, "run_id": run_id, "request_id": "req-2", "language": "en", "claimant": claimant}


def talk(user, *pairs, conversation_id=None, now=None) -> str:
    """Complete one turn for each (question, answer) and return the conversation's id."""
    now = now or utc_now()
    for number, (question, answer) in enumerate(pairs):
        at = now + timedelta(seconds=number)
        run = ask(user, question, conversation_id=conversation_id, now=at)
        finish_run(run=run, result=result(answer), now=at)
        conversation_id = run.conversation_id
    assert conversation_id is not None
    return conversation_id


def end_orphaned_runs(*, now, limit=100):
    """End the runs that nobody will execute any more, as the job does when it has waited; return how many."""
    orphans = list_orphaned_runs(now=now, limit=limit)
    return sum(end_orphaned_run(run_id=orphan.run_id, now=now) for orphan in orphans)
