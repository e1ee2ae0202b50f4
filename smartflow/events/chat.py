"""Events of conversations."""

from dataclasses import dataclass

from smartflow.events.base import Event


@dataclass(frozen=True, kw_only=True)
class ChatHistoryPersistRequested(Event):
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
