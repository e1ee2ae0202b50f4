"""The operators' pages of users, their token sessions, their quota and the log of what operators did."""

from smartflow.accounts.admin.ledger import TokenLedgerAdmin
from smartflow.accounts.admin.sessions import LogEntryAdmin, TokenSessionAdmin
from smartflow.accounts.admin.users import GroupAdmin, UserAdmin

__all__ = ["GroupAdmin", "LogEntryAdmin", "TokenLedgerAdmin", "TokenSessionAdmin", "UserAdmin"]
