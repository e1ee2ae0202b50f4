"""The token ledger: one row per call to a model, grant and adjustment, only ever appended; and the sums made from it.

record_calls is called by consumers, thousands of entries a second when the outbox catches up: hence SQL instead of
models, which would take most of their time. Knows no event and no conversation.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from django.db import connection, transaction
from django.db.models import Model, OuterRef, Q, QuerySet, Subquery, Sum
from django.db.models.functions import Coalesce

from smartflow.accounts.contracts import ComparedRows, EntryKind, ModelCall, SumDifference
from smartflow.accounts.models import TokenHold, TokenLedgerEntry, TokenWindow, User

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

# The sums that the ledger and the holds can prove.
_COMPARED: Mapping[type[Model], tuple[str, ...]] = {
    User: ("token_usage",),
    TokenWindow: ("used_tokens", "held_tokens", "granted_tokens"),
}


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


def sum_tokens_of_conversations(*, conversation_ids: Collection[str]) -> Mapping[str, int]:
    """Return what the ledger says each of the conversations took; 0 for one without a row. One statement, by index."""
    return _sums_by("conversation_id", conversation_ids)


def sum_tokens_of_runs(*, run_ids: Collection[str], without_purpose: str = "") -> Mapping[str, int]:
    """
    Return what the ledger says each of the runs took; 0 for one without a row. One statement, by index.

    `without_purpose`: calls that were made for this are left out.
    """
    return _sums_by("run_id", run_ids, without_purpose)


def list_charges(*, hold_ids: Collection[str]) -> Mapping[str, int]:
    """Return what was charged for each of the holds; one that was not settled is not among them. One statement."""
    settled = TokenHold.objects.filter(pk__in=hold_ids, charged_tokens__isnull=False)
    return {pk: charged or 0 for pk, charged in settled.values_list("pk", "charged_tokens")}


def repair_charge(*, hold_id: str, tokens: int) -> None:
    """Set what was charged for a hold. Its window shows the difference to its holds then, for repair_window."""
    TokenHold.objects.filter(pk=hold_id, charged_tokens__isnull=False).update(charged_tokens=tokens)


def list_run_calls(*, run_id: str, limit: int) -> list[NewEntry]:
    """Return a run's calls to models as the ledger has them, oldest first. One statement, by idx_ledger_run."""
    rows = TokenLedgerEntry.objects.filter(run_id=run_id, kind=EntryKind.USAGE).order_by("id")[:limit]
    return [
        NewEntry(
            entry_key=row.entry_key,
            user_id=row.user_id,
            conversation_id=row.conversation_id,
            run_id=row.run_id,
            call=ModelCall(
                call_id=row.entry_key,
                purpose=row.purpose,
                model=row.model,
                input_tokens=row.input_tokens,
                cached_tokens=row.cached_tokens,
                output_tokens=row.output_tokens,
                reasoning_tokens=row.reasoning_tokens,
                total_tokens=row.total_tokens,
                is_estimated=row.is_estimated,
            ),
            created_at=row.created_at,
            request_id=row.request_id,
        )
        for row in rows
    ]


def compare_users(*, after_id: int = 0, limit: int = 500) -> ComparedRows:
    """
    Compare users.token_usage with the ledger, for the `limit` users that follow that primary key.

    Transaction: one statement, so that it sees each user's sum and rows as of one moment: traffic is no difference.
    Shape:       ask again with last_id until it is None.
    """
    rows = list(_users().filter(pk__gt=after_id).order_by("pk")[:limit])
    return _compared(rows, limit)


def compare_windows(*, after_id: int = 0, limit: int = 500, user_id: int | None = None) -> ComparedRows:
    """
    Compare the windows' used, held and granted tokens, all or a user's, with their holds and rows of the ledger.

    Transaction: as compare_users.
    Shape:       differences in up to three columns of a window; ask again with last_id until it is None.
    """
    windows = _windows() if user_id is None else _windows().filter(user_id=user_id)
    rows = list(windows.filter(pk__gt=after_id).order_by("pk")[:limit])
    return _compared(rows, limit)


def repair_user(*, user_id: int) -> tuple[SumDifference, ...]:
    """
    Set users.token_usage to what the ledger says, if it still differs; return what was mended.

    Transaction: its own, with the user locked: whoever adds to the ledger adds to the user too and waits.
    Twice:       safe; the second time mends nothing.
    """
    with transaction.atomic():
        User.objects.select_for_update().filter(pk=user_id).values_list("pk").first()
        return _repair(_users().filter(pk=user_id))


def repair_window(*, window_id: int) -> tuple[SumDifference, ...]:
    """
    Set a window's used, held and granted tokens to what its rows say, where they still differ, and return those.

    Transaction: its own, with the window locked: holds and settlements wait.
    Twice:       safe; the second time mends nothing.
    """
    with transaction.atomic():
        TokenWindow.objects.select_for_update().filter(pk=window_id).values_list("pk").first()
        return _repair(_windows().filter(pk=window_id))


def _sums_by(column: str, values: Collection[str], without_purpose: str = "") -> Mapping[str, int]:
    counted = TokenLedgerEntry.objects.filter(~Q(kind=EntryKind.GRANT), **{f"{column}__in": list(values)})
    if without_purpose:
        counted = counted.exclude(purpose=without_purpose)
    sums = dict(counted.values_list(column).annotate(tokens=Sum("total_tokens")))
    return {value: sums.get(value, 0) for value in values}


def _users() -> QuerySet[User]:
    own = TokenLedgerEntry.objects.filter(user_id=OuterRef("pk")).exclude(kind=EntryKind.GRANT)
    return User.objects.only("token_usage").annotate(computed_token_usage=_sum_of(own, "user_id", "total_tokens"))


def _windows() -> QuerySet[TokenWindow]:
    holds = TokenHold.objects.filter(window_id=OuterRef("pk"))
    entries = TokenLedgerEntry.objects.filter(window_id=OuterRef("pk"))
    adjusted = _sum_of(entries.filter(kind=EntryKind.ADJUST), "window_id", "total_tokens")
    return TokenWindow.objects.annotate(
        computed_used_tokens=_sum_of(holds, "window_id", "charged_tokens") + adjusted,
        computed_held_tokens=_sum_of(holds.filter(settled_at__isnull=True), "window_id", "tokens"),
        computed_granted_tokens=_sum_of(entries.filter(kind=EntryKind.GRANT), "window_id", "total_tokens"),
    )


def _sum_of(rows: QuerySet[Any], group: str, column: str) -> Coalesce:
    return Coalesce(Subquery(rows.order_by().values(group).annotate(tokens=Sum(column)).values("tokens")), 0)


def _differences(row: Model) -> Iterator[SumDifference]:
    for column in _COMPARED[type(row)]:
        stored, computed = getattr(row, column), int(getattr(row, f"computed_{column}"))
        if stored != computed:
            yield SumDifference(table=row._meta.db_table, id=row.pk, column=column, stored=stored, computed=computed)


def _compared(rows: Sequence[Model], limit: int) -> ComparedRows:
    found = tuple(difference for row in rows for difference in _differences(row))
    return ComparedRows(differences=found, last_id=rows[-1].pk if len(rows) == limit else None)


def _repair(rows: QuerySet[Any]) -> tuple[SumDifference, ...]:
    found = tuple(difference for row in rows for difference in _differences(row))
    if found:
        rows.model._default_manager.filter(pk=found[0].id).update(
            **{difference.column: difference.computed for difference in found}
        )
    return found
