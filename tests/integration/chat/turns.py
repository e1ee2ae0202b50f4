"""Begins and ends turns for tests of chat, through the product's own operations."""

from datetime import timedelta

from chat.contracts import RunResult, RunState, StartedRun, TurnRequest
from chat.operations import begin_turn, finish_run
from smartflow.accounts.contracts import ModelCall
from smartflow.kernel.clock import utc_now
from smartflow.kernel.ids import new_uuid

OWNER = "tests:1:0"
LEASE_SECONDS = 15


def ask(user, message="Hello", *, conversation_id=None, now=None, owner=OWNER) -> StartedRun:
    """Begin a turn."""
    request = TurnRequest(
        user_id=user.pk,
        message=message,
        conversation_id=conversation_id,
        model="worker",
        thinking="auto",
        request_id="req-1",
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
