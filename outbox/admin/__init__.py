"""The operators' pages: the overview, every row, blocked keys, the parked rows, and what operators did about them."""

from outbox.admin.blocked_keys import KeyHoldAdmin
from outbox.admin.dead_letters import DeadLetterAdmin
from outbox.admin.operator_actions import OperatorActionAdmin
from outbox.admin.rows import OutboxMessageAdmin

__all__ = ["DeadLetterAdmin", "KeyHoldAdmin", "OperatorActionAdmin", "OutboxMessageAdmin"]
