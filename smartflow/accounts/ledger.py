"""The token ledger: one row per call to a model, grant and adjustment, only ever appended.

Called by consumers, thousands of entries a second when the outbox catches up: hence SQL instead of models, which would
take most of their time. Knows no event and no conversation.
"""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import NamedTuple

from django.db import connection

from smartflow.accounts.contracts import EntryKind, ModelCall
from smartflow.accounts.models import TokenLedgerEntry

# One INSERT's worth: SQLite refuses a statement of more than 32,766 values.
_PORTION_ROWS = 1500
_PORTION_KEYS = 30_000

_INSERT = (
    "INSERT INTO token_ledger"
    " (entry_key, user_id, conversation_id, run_id, kind, purpose, model, input_tokens, cached_tokens, output_tokens,"
    " reasoning_tokens, total_tokens, is_estimated, reason, actor_id, request_id, window_id, created_at)"
    " VALUES "
)
_ROW = "(" + "%s, " * 13 + "'', NULL, %s, NULL, %s)"


class NewEntry(NamedTuple):
    """A call to a model as the ledger keeps it. `entry_key` names it once and for ever."""

    entry_key: str
    user_id: int
    conversation_id: str
    run_id: str
    call: ModelCall
    created_at: datetime
    kind: EntryKind = EntryKind.USAGE
    request_id: str = ""


def list_known_entries(*, entry_keys: Collection[str]) -> frozenset[str]:
    """
    Return those of the keys that have their row, so that a caller adds only the others to the sums. One statement.

    Source: the unique entry_key; it outlives the events and their outbox rows.
    """
    known: set[str] = set()
    keys = list(entry_keys)
    for start in range(0, len(keys), _PORTION_KEYS):
        portion = keys[start : start + _PORTION_KEYS]
        known.update(TokenLedgerEntry.objects.filter(entry_key__in=portion).values_list("entry_key", flat=True))
    return frozenset(known)


def record_calls(*, entries: Sequence[NewEntry]) -> None:
    """
    Append calls to the ledger, one statement for up to 1,500 of them.

    Transaction: the caller's, which adds the same numbers to the three sums of rule B.
    Twice:       raises IntegrityError and so undoes the caller's transaction; a caller that may come twice asks
                 list_known_entries first, or knows by a row of its own that is as unique.
    """
    text_of = connection.ops.adapt_datetimefield_value
    with connection.cursor() as cursor:
        for start in range(0, len(entries), _PORTION_ROWS):
            portion = entries[start : start + _PORTION_ROWS]
            values: list[str | int] = []
            for entry in portion:
                call = entry.call
                values += (
                    entry.entry_key,
                    entry.user_id,
                    entry.conversation_id,
                    entry.run_id,
                    entry.kind,
                    call.purpose,
                    call.model,
                    call.input_tokens,
                    call.cached_tokens,
                    call.output_tokens,
                    call.reasoning_tokens,
                    call.total_tokens,
                    call.is_estimated,
                    entry.request_id,
                    str(text_of(entry.created_at)),
                )
            cursor.execute(_INSERT + ", ".join([_ROW] * len(portion)), values)
