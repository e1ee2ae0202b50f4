"""The operators' pages of conversations, messages, runs, timelines and states; nothing here changes a row."""

from chat.admin.conversations import AgentChatAdmin
from chat.admin.histories import ChatHistoryAdmin
from chat.admin.runs import ChatRunAdmin
from chat.admin.snapshots import AgentStateSnapshotAdmin
from chat.admin.timeline import AgentTimelineEventAdmin

__all__ = [
    "AgentChatAdmin",
    "AgentStateSnapshotAdmin",
    "AgentTimelineEventAdmin",
    "ChatHistoryAdmin",
    "ChatRunAdmin",
]
