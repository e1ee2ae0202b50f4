"""The event catalog: every event type there is. A type that is not listed here can be neither appended nor handled."""

from smartflow.events.base import Event, EventUnreadable
from smartflow.events.chat import (
    AgentStateSnapshotPersist,
    ChatHistoryPersistRequested,
    ChatHistoryPersistRequestedV1,
    ChatTokenUsageAdjustRequested,
)
from smartflow.events.tasks import (
    TaskClassItemsDeleted,
    TaskFact,
    TaskItemChanged,
    TaskItemCompleted,
    TaskItemCreated,
    TaskItemDeleted,
    TaskItemDueSoon,
    TaskUrgencyPromoteRequested,
)

_EVENTS: tuple[type[Event], ...] = (
    AgentStateSnapshotPersist,
    ChatHistoryPersistRequested,
    ChatHistoryPersistRequestedV1,
    ChatTokenUsageAdjustRequested,
    TaskClassItemsDeleted,
    TaskItemChanged,
    TaskItemCompleted,
    TaskItemCreated,
    TaskItemDeleted,
    TaskItemDueSoon,
    TaskUrgencyPromoteRequested,
)
CATALOG: dict[tuple[str, int], type[Event]] = {(event.event_type, event.event_version): event for event in _EVENTS}
EVENT_TYPES = frozenset(event_type for event_type, _ in CATALOG)

__all__ = [
    "CATALOG",
    "EVENT_TYPES",
    "AgentStateSnapshotPersist",
    "ChatHistoryPersistRequested",
    "ChatHistoryPersistRequestedV1",
    "ChatTokenUsageAdjustRequested",
    "Event",
    "EventUnreadable",
    "TaskClassItemsDeleted",
    "TaskFact",
    "TaskItemChanged",
    "TaskItemCompleted",
    "TaskItemCreated",
    "TaskItemDeleted",
    "TaskItemDueSoon",
    "TaskUrgencyPromoteRequested",
]
