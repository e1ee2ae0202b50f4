"""Reactions to events of conversations."""

from collections.abc import Sequence

from chat import operations
from outbox.registry import Received, handles_batch
from smartflow.events import ChatHistoryPersistRequested


@handles_batch(ChatHistoryPersistRequested.event_type)
def record_messages(received: Sequence[Received]) -> None:
    """Write the messages and count them."""
    operations.record_messages(events={one.event_id: one.event for one in received})
