"""The operators' pages: every row (rows.py) and the parked ones with what can be done about them (dead_letters.py)."""

from outbox.admin.dead_letters import DeadLetterAdmin
from outbox.admin.rows import OutboxMessageAdmin

__all__ = ["DeadLetterAdmin", "OutboxMessageAdmin"]
