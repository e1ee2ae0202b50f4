"""The events of a run: its question's message when it begins; its answer's, and the state it leaves, when it ends."""

import json
from dataclasses import asdict
from datetime import datetime

from chat.contracts import Role, RunResult, RunState, StartedRun
from chat.models import ChatRun
from outbox.append import NewEvent, append_event, append_events
from smartflow.events import AgentStateSnapshotPersist, ChatHistoryPersistRequested

SNAPSHOT_VERSION = 1
# What the assistant does between two runs, as long as it only talks.
PHASE_CHATTING = "chatting"
# An answer that broke off, as against one that was refused or never began.
CUT_CODES = frozenset({"run_interrupted", "model_cut", "model_reached_length"})


def append_question(*, run: StartedRun, now: datetime) -> None:
    """
    Append the event of what the user said.

    Transaction: the caller's, which holds the conversation's row. Its id is made from the run's: there is only one.
    """
    append_event(
        event=ChatHistoryPersistRequested(
            user_id=run.user_id,
            conversation_id=run.conversation_id,
            run_id=run.run_id,
            role=Role.USER,
            message=run.message,
            tokens_consumed=0,
            occurred_at=now.isoformat(),
            calls=[],
        ),
        key=run.conversation_id,
        event_id=f"{run.run_id}:{Role.USER}",
        request_id=run.request_id,
        now=now,
    )


def append_end(*, run: ChatRun, result: RunResult, revision: int, now: datetime) -> None:
    """
    Append the event of the answer, with every call of a model that the run made, and that of the assistant's state.

    Transaction: the caller's, which holds the conversation's row; one INSERT for both. A run that said nothing and
                 cost nothing has no message.
    Order:       the answer before the state; `revision` is the timeline's last seq.
    """
    events = [
        NewEvent(event=_snapshot(run, result, revision), key=run.chat_id, event_id=f"{run.id}:snapshot"),
    ]
    if result.text or result.calls:
        answer = _answer(run, result, now)
        events.insert(0, NewEvent(event=answer, key=run.chat_id, event_id=answer_event_id(run_id=run.id)))
    append_events(events=events, request_id=run.request_id, now=now)


def answer_event_id(*, run_id: str) -> str:
    """Return the id of the event of a run's answer, which its row of the history carries too."""
    return f"{run_id}:{Role.ASSISTANT}"


def _answer(run: ChatRun, result: RunResult, now: datetime) -> ChatHistoryPersistRequested:
    return ChatHistoryPersistRequested(
        user_id=run.user_id,
        conversation_id=run.chat_id,
        run_id=run.id,
        role=Role.ASSISTANT,
        message=result.text,
        tokens_consumed=result.total_tokens,
        occurred_at=now.isoformat(),
        calls=[asdict(call) for call in result.calls],
    )


def _snapshot(run: ChatRun, result: RunResult, revision: int) -> AgentStateSnapshotPersist:
    state = {
        "version": SNAPSHOT_VERSION,
        "last_run_id": run.id,
        "terminal_outcome": {"status": _outcome(result), "code": result.error_code},
    }
    return AgentStateSnapshotPersist(
        user_id=run.user_id,
        conversation_id=run.chat_id,
        phase=PHASE_CHATTING,
        snapshot_json=json.dumps(state),
        revision=revision,
    )


def _outcome(result: RunResult) -> str:
    if result.state == RunState.FINISHED:
        return "completed"
    return "interrupted" if result.error_code in CUT_CODES else str(result.state)
