"""The event of a message, appended by whoever begins or ends a run."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Protocol

from chat.contracts import Role
from outbox.append import append_event
from smartflow.accounts.contracts import ModelCall
from smartflow.events import ChatHistoryPersistRequested


class Messenger(Protocol):
    """What an event needs to know of a run."""

    @property
    def run_id(self) -> str: ...
    @property
    def conversation_id(self) -> str: ...
    @property
    def user_id(self) -> int: ...
    @property
    def request_id(self) -> str: ...


def append_message(*, run: Messenger, role: Role, text: str, calls: Sequence[ModelCall], now: datetime) -> None:
    """
    Append the event of a run's question or answer; the answer's carries every call of a model that the run made.

    Transaction: the caller's, which holds the conversation's row. Its id is made from the run's: there is only one.
    """
    append_event(
        event=ChatHistoryPersistRequested(
            user_id=run.user_id,
            conversation_id=run.conversation_id,
            run_id=run.run_id,
            role=role,
            message=text,
            tokens_consumed=sum(call.total_tokens for call in calls),
            occurred_at=now.isoformat(),
            calls=[asdict(call) for call in calls],
        ),
        key=run.conversation_id,
        event_id=f"{run.run_id}:{role}",
        request_id=run.request_id,
        now=now,
    )
