"""The operators' pages: every row (rows.py), the parked ones (dead_letters.py), and what operators did about them."""

from outbox.admin.dead_letters import DeadLetterAdmin
from outbox.admin.operator_actions import OperatorActionAdmin
from outbox.admin.rows import OutboxMessageAdmin

__all__ = ["DeadLetterAdmin", "OperatorActionAdmin", "OutboxMessageAdmin"]
