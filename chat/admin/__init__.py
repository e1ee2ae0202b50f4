"""The operators' pages of conversations, messages and runs; nothing here changes a row."""

from chat.admin.conversations import AgentChatAdmin
from chat.admin.histories import ChatHistoryAdmin
from chat.admin.runs import ChatRunAdmin

__all__ = ["AgentChatAdmin", "ChatHistoryAdmin", "ChatRunAdmin"]
