"""Reactions to events of conversations."""

from collections.abc import Sequence

from chat import operations
from outbox.registry import Received, handles_batch
from smartflow.events import AgentStateSnapshotPersist, ChatHistoryPersistRequested, ChatTokenUsageAdjustRequested
from smartflow.kernel.clock import utc_now


@handles_batch(ChatHistoryPersistRequested.event_type)
def record_messages(received: Sequence[Received]) -> None:
    """Write the messages and count them."""
    operations.record_messages(events={one.event_id: one.event for one in received})


@handles_batch(ChatTokenUsageAdjustRequested.event_type)
def record_token_adjustments(received: Sequence[Received]) -> None:
    """Add calls that were made aside from a turn to the ledger and the sums."""
    operations.record_token_adjustments(events={one.event_id: one.event for one in received})


@handles_batch(AgentStateSnapshotPersist.event_type)
def record_snapshots(received: Sequence[Received]) -> None:
    """Keep the assistant's newest states."""
    operations.record_snapshots(events=[one.event for one in received], now=utc_now())
