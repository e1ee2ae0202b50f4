"""The operators' pages of conversations, messages, runs, timelines, states and the long-term memory.

Only items of the memory are acted on here, by operations; nothing else changes a row.
"""

from chat.admin.conversations import AgentChatAdmin
from chat.admin.histories import ChatHistoryAdmin
from chat.admin.memory_changes import MemoryAuditLogAdmin, MemorySettingsAdmin
from chat.admin.memory_items import MemoryItemAdmin
from chat.admin.runs import ChatRunAdmin
from chat.admin.snapshots import AgentStateSnapshotAdmin
from chat.admin.timeline import AgentTimelineEventAdmin

__all__ = [
    "AgentChatAdmin",
    "AgentStateSnapshotAdmin",
    "AgentTimelineEventAdmin",
    "ChatHistoryAdmin",
    "ChatRunAdmin",
    "MemoryAuditLogAdmin",
    "MemoryItemAdmin",
    "MemorySettingsAdmin",
]
