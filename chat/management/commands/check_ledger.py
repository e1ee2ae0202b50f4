"""`manage.py check_ledger`: tells whether every sum of tokens is what the ledger says, and mends it when asked."""

import time
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from chat.ledger_check import LedgerDifference, check_ledger

# How often long work says where it is.
PROGRESS_SECONDS = 5.0


class Command(BaseCommand):
    """Prints a line for each difference; exits with 1 when something differs and was not mended."""

    help = "Compare users, conversations, messages, runs, their charges and quota windows with the token ledger."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take --repair and --user."""
        parser.add_argument("--repair", action="store_true", help="set each wrong sum to what the ledger says")
        parser.add_argument("--user", type=int, metavar="ID", help="look at this user alone")

    def handle(self, *args: Any, **options: Any) -> None:
        """Compare, report, and mend if asked."""
        self._told_at = time.monotonic()
        mended = left = 0
        found = check_ledger(user_id=options["user"], is_repairing=options["repair"], on_progress=self._tell)
        for difference in found:
            self.stdout.write(_line(difference))
            mended += difference.is_mended
            left += not difference.is_mended
        if left:
            raise CommandError(f"{left} differences are left" + (f", {mended} were mended." if mended else "."))
        self.stdout.write(f"{mended} differences were mended." if mended else "Every sum is what the ledger says.")

    def _tell(self, table: str, last_id: int | str) -> None:
        if time.monotonic() - self._told_at >= PROGRESS_SECONDS:
            self._told_at = time.monotonic()
            self.stderr.write(f"... {table} up to id {last_id}")


def _line(one: LedgerDifference) -> str:
    where = f"{one.table} id {one.id}" if one.id else f"{one.table}: no row"
    outcome = "mended" if one.is_mended else "differs"
    return f"{outcome}: {where} ({one.whose}), {one.column}: stored {one.stored}, by the ledger {one.computed}"
