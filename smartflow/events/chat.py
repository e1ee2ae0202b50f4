"""Events of conversations."""

from dataclasses import dataclass
from typing import Any

from smartflow.events.base import Event


@dataclass(frozen=True, kw_only=True)
class ChatHistoryPersistRequestedV1(Event):
    """
    A message was accepted or an answer ended: write it to chat_histories and count it.

    `tokens_consumed` follows rule B: 0 on a user's message, the whole turn's total on the assistant's.
    `occurred_at` is ISO 8601 in UTC: when the message was written, which is not when the event is handled.
    """

    event_type = "chat.history.persist.requested"
    event_version = 1

    user_id: int
    conversation_id: str
    run_id: str
    role: str
    message: str
    tokens_consumed: int
    occurred_at: str


@dataclass(frozen=True, kw_only=True)
class ChatHistoryPersistRequested(ChatHistoryPersistRequestedV1):
    """The same with the model calls that `tokens_consumed` is the sum of, as the ledger keeps them."""

    event_version = 2

    calls: list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class ChatTokenUsageAdjustRequested(Event):
    """
    A model was called for a conversation aside from its turns: add the tokens to the ledger and the sums.

    `run_id` is the run whose answer is charged in the history; `triggered_at` is ISO 8601 in UTC.
    """

    event_type = "chat.token_usage.adjust.requested"
    event_version = 1

    user_id: int
    conversation_id: str
    run_id: str
    tokens_delta: int
    reason: str
    triggered_at: str
    call: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class AgentStateSnapshotPersist(Event):
    """
    The assistant's state after a run. Each says everything anew, and the newest revision wins: a dead one holds
    nobody up.
    """

    event_type = "agent.state.snapshot.persist"
    event_version = 1
    blocks_key_when_dead = False

    user_id: int
    conversation_id: str
    phase: str
    snapshot_json: str
    revision: int
