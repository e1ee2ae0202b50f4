"""A user's weekly token quota: holds before a run, settlements after it, and what operators grant or adjust.

A hold is taken by one conditional UPDATE on the user's window, so that any number of requests at once never hold more
than is left. Whoever changes a hold has locked its window before; the order of locks is user, window, hold, ledger.
Called by chat inside its own transactions. The windows' sums and what they are made of stand at models.TokenWindow.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Exists, F, QuerySet
from django.db.transaction import TransactionManagementError
from django.utils.functional import lazy
from django.utils.translation import gettext

from smartflow.accounts.contracts import EntryKind
from smartflow.accounts.models import TokenHold, TokenLedgerEntry, TokenWindow, User
from smartflow.accounts.quota_window import Week, find_week, find_zone
from smartflow.api.rows import RowReader, execute, fetch, insert_row, moment
from smartflow.kernel.errors import Conflict, Invalid, NotFound, Unavailable
from smartflow.kernel.ids import new_uuid
from smartflow.kernel.text import noop as _

# What every turn waits for before the model is asked, and behind its end; put together by the models, these statements
# took a third of the time that the process spent on a turn. Each window begins where the last one ended.
_FIND_WINDOW = (
    "SELECT token_windows.id, users.token_limit, users.time_zone FROM token_windows"
    " JOIN users ON users.id = token_windows.user_id"
    " WHERE token_windows.user_id = %s AND token_windows.ends_at > %s ORDER BY token_windows.starts_at DESC LIMIT 1"
)
_TAKE = (
    "UPDATE token_windows SET held_tokens = held_tokens + %s"
    " WHERE id = %s AND %s + granted_tokens - used_tokens - held_tokens >= %s"
    " AND NOT EXISTS (SELECT 1 FROM token_holds WHERE hold_id = %s)"
)
_CHARGE_HOLD = "UPDATE token_holds SET charged_tokens = %s, settled_at = COALESCE(settled_at, %s) WHERE hold_id = %s"
_CHARGE_WINDOW = "UPDATE token_windows SET used_tokens = used_tokens + %s, held_tokens = held_tokens - %s WHERE id = %s"
_LOCKED_WINDOW = RowReader(TokenWindow, "id = %s", is_locking=True)
_HOLD = RowReader(TokenHold, "hold_id = %s")
# What a column of the ledger holds.
MOST_TOKENS = 2**31 - 1


class QuotaExceeded(Unavailable):
    """The user's window has not that much left."""

    code = "40051"
    message = _("Your token quota is used up.")


class HoldGone(Conflict):
    """The hold was settled, or it expired and was released."""

    message = _("The tokens set aside for this answer are no longer held.")


class NothingToChange(Invalid):
    """The number is 0, or there is nothing to take it from."""

    message = _("There is nothing to change: give a number that is not 0, and take off no more than there is.")


@dataclass(frozen=True)
class _Window:
    id: int
    limit: int
    zone_name: str


def hold_tokens(*, user_id: int, hold_id: str, tokens: int, expires_at: datetime, now: datetime) -> None:
    """
    Set tokens of the user's current window aside, for a run that will settle them.

    Transaction: the caller's; raises outside one. The window stays locked until it ends.
    Twice:       a hold that exists in any state is left as it is.
    Raises:      QuotaExceeded 40051, after the user's expired holds were released; NotFound without such a user.
    """
    _require_transaction()
    window = _open_window(user_id, now)
    if not _take(window, hold_id, tokens):
        if TokenHold.objects.filter(pk=hold_id).exists():
            return
        # Also when nothing was released here: another may have done it while this one waited for the window.
        _release_expired(window.id, now)
        if not _take(window, hold_id, tokens):
            raise _refusal(window, tokens, now)
    insert_row(TokenHold, hold_id=hold_id, user_id=user_id, window_id=window.id, tokens=tokens, expires_at=expires_at)


def extend_hold(*, hold_id: str, tokens: int, expires_at: datetime, now: datetime) -> None:
    """
    Make a live hold one of `tokens` in all, and let it expire later.

    Transaction: the caller's, or its own. Refused, it changes nothing: the old hold stands.
    Twice:       safe; it sets a total.
    Raises:      QuotaExceeded 40051; HoldGone when it was settled or released, or never was.
    """
    with transaction.atomic():
        hold = _lock_hold(hold_id)
        if hold is None or hold.settled_at is not None:
            raise HoldGone
        more = tokens - hold.tokens
        if more:
            window = _read_window(hold.window_id)
            if not _add_held(window, more) and not (_release_expired(window.id, now) and _add_held(window, more)):
                raise _refusal(window, more, now)
        TokenHold.objects.filter(pk=hold_id).update(tokens=tokens, expires_at=expires_at)


def settle_hold(*, user_id: int, hold_id: str, tokens: int, now: datetime) -> None:
    """
    Charge what a run took to the window it was held in, and free the rest of the hold.

    Transaction: the caller's, which ends the run.
    Twice:       the first settlement stays. A hold that expired and was released is charged all the same, and so is a
                 run that never held anything: in the current window.
    """
    _require_transaction()
    hold = _lock_hold(hold_id)
    if hold is None:
        charge_tokens(user_id=user_id, hold_id=hold_id, tokens=tokens, now=now)
    elif hold.charged_tokens is None:
        execute(_CHARGE_HOLD, tokens, moment(now), hold_id)
        freed = hold.tokens if hold.settled_at is None else 0
        execute(_CHARGE_WINDOW, tokens, freed, hold.window_id)


def charge_tokens(*, user_id: int, hold_id: str, tokens: int, now: datetime) -> None:
    """
    Charge a call that was not held for to the current window, whatever is left of it.

    Transaction: the caller's.
    Twice:       no effect for an id that has a row.
    """
    _require_transaction()
    window = _open_window(user_id, now)
    charged = TokenWindow.objects.filter(~Exists(TokenHold.objects.filter(pk=hold_id)), pk=window.id)
    if charged.update(used_tokens=F("used_tokens") + tokens):
        TokenHold.objects.create(
            hold_id=hold_id,
            user_id=user_id,
            window_id=window.id,
            tokens=0,
            expires_at=now,
            charged_tokens=tokens,
            settled_at=now,
        )


def release_expired_holds(*, now: datetime, limit: int = 1000) -> int:
    """
    Free the holds of runs that died, at most `limit`; return how many.

    Transaction: one of its own for each window.
    Twice:       safe, also at once. A run that comes back later is still charged by settle_hold.
    """
    expired = TokenHold.objects.filter(settled_at__isnull=True, expires_at__lte=now).order_by("expires_at", "pk")
    windows = set(expired.values_list("window_id", flat=True)[:limit])
    released = 0
    for window_id in sorted(windows):
        with transaction.atomic():
            released += _release_expired(window_id, now)
    return released


def grant_tokens(*, user_id: int, tokens: int, reason: str, by: int, now: datetime, entry_key: str = "") -> int:
    """
    Give a user more tokens for the current window; a negative number takes a grant back. Return what was given.

    Transaction: its own or the caller's: the window and one row of the ledger, kind grant, by the operator `by`.
    Twice:       gives twice, unless both name the same entry_key: then the second has no effect and returns 0.
    Raises:      NothingToChange 40005 for 0 tokens, or where no grant is left to take back; NotFound.
    """
    with transaction.atomic():
        window = _lock_window(_open_window(user_id, now).id)
        decision = _Decision(user_id, EntryKind.GRANT, max(tokens, -window.granted_tokens), reason, by, now, entry_key)
        if not _append_decision(decision, window):
            return 0
        TokenWindow.objects.filter(pk=window.pk).update(granted_tokens=F("granted_tokens") + decision.tokens)
    return decision.tokens


def adjust_tokens(*, user_id: int, tokens: int, reason: str, by: int, now: datetime, entry_key: str = "") -> int:
    """
    Change what a user has used, in the current window and in all; return the change, which never goes below 0 used.

    Transaction: its own or the caller's: the window, users.token_usage and one row of the ledger, kind adjust, all
                 three by the same number.
    Twice:       changes twice, unless both name the same entry_key: then the second has no effect and returns 0.
    Raises:      NothingToChange 40005 for 0 tokens, or where nothing is used that could be taken off; NotFound.
    """
    with transaction.atomic():
        # The user first: opening a window locks the two in that order.
        User.objects.select_for_update().filter(pk=user_id).values_list("pk").first()
        window = _lock_window(_open_window(user_id, now).id)
        decision = _Decision(user_id, EntryKind.ADJUST, max(tokens, -window.used_tokens), reason, by, now, entry_key)
        if not _append_decision(decision, window):
            return 0
        TokenWindow.objects.filter(pk=window.pk).update(used_tokens=F("used_tokens") + decision.tokens)
        User.objects.filter(pk=user_id).update(token_usage=F("token_usage") + decision.tokens)
    return decision.tokens


@dataclass(frozen=True)
class _Decision:
    user_id: int
    kind: EntryKind
    tokens: int
    reason: str
    by: int
    now: datetime
    entry_key: str


def _append_decision(decision: _Decision, window: TokenWindow) -> bool:
    """Write an operator's row; tell whether it is new. The caller holds the window, so two at once come in turn."""
    if decision.entry_key and TokenLedgerEntry.objects.filter(entry_key=decision.entry_key).exists():
        return False
    if not decision.tokens or decision.tokens > MOST_TOKENS:
        raise NothingToChange(fields={"tokens": gettext("Give a number that can be applied.")})
    TokenLedgerEntry.objects.create(
        entry_key=decision.entry_key or f"{decision.kind}:{new_uuid()}",
        user_id=decision.user_id,
        kind=decision.kind,
        total_tokens=decision.tokens,
        reason=decision.reason,
        actor_id=decision.by,
        window=window,
        created_at=decision.now,
    )
    return True


def _require_transaction() -> None:
    if not connection.in_atomic_block:
        raise TransactionManagementError("A hold belongs to the transaction of the run it is for.")


def _open_window(user_id: int, now: datetime) -> _Window:
    """Return the user's current window, opened if need be. One query while it runs."""
    window = _find_window(user_id, now)
    while window is None:
        user = User.objects.filter(pk=user_id).values("token_limit", "time_zone", "last_reset_at").first()
        if user is None:
            raise NotFound
        # After the user: whoever opens a window from here on changes the row that was read.
        window = _find_window(user_id, now) or _open_next(user_id, user, now)
    return window


def _find_window(user_id: int, now: datetime) -> _Window | None:
    row = fetch(_FIND_WINDOW, user_id, moment(now))
    return None if row is None else _Window(*row)


def _open_next(user_id: int, user: Mapping[str, Any], now: datetime) -> _Window | None:
    """Open the window after the newest; None when another did meanwhile, even with another zone in mind."""
    newest = TokenWindow.objects.filter(user_id=user_id).order_by("-starts_at")
    last = newest.values_list("starts_at", "ends_at").first()
    zone = find_zone(user["time_zone"], default=settings.TIME_ZONE)
    week = find_week(last=Week(*last) if last else None, zone=zone, now=now)
    own = User.objects.filter(pk=user_id, last_reset_at=user["last_reset_at"])
    if not own.update(last_reset_at=week.starts_at):
        return None
    window = TokenWindow.objects.create(user_id=user_id, starts_at=week.starts_at, ends_at=week.ends_at)
    return _Window(window.pk, user["token_limit"], user["time_zone"])


def _read_window(window_id: int) -> _Window:
    limit, zone = TokenWindow.objects.values_list("user__token_limit", "user__time_zone").get(pk=window_id)
    return _Window(window_id, limit, zone)


def _lock_window(window_id: int) -> TokenWindow:
    return TokenWindow.objects.select_for_update().get(pk=window_id)


def _lock_hold(hold_id: str) -> TokenHold | None:
    """Lock the hold's window and return the hold as it is then; None without such a hold."""
    found = fetch("SELECT window_id FROM token_holds WHERE hold_id = %s", hold_id)
    if found is None:
        return None
    _LOCKED_WINDOW.find(*found)
    return _HOLD.find(hold_id)


def _with_room(window: _Window, tokens: int) -> QuerySet[TokenWindow]:
    left = window.limit + F("granted_tokens") - F("used_tokens") - F("held_tokens")
    return TokenWindow.objects.alias(left=left).filter(pk=window.id, left__gte=tokens)


def _take(window: _Window, hold_id: str, tokens: int) -> bool:
    return bool(execute(_TAKE, tokens, window.id, window.limit, tokens, hold_id))


def _add_held(window: _Window, more: int) -> bool:
    room = _with_room(window, more) if more > 0 else TokenWindow.objects.filter(pk=window.id)
    return bool(room.update(held_tokens=F("held_tokens") + more))


def _release_expired(window_id: int, now: datetime) -> int:
    """Free the window's expired holds; return how many."""
    _lock_window(window_id)
    expired = TokenHold.objects.filter(window_id=window_id, settled_at__isnull=True, expires_at__lte=now)
    tokens = dict(expired.values_list("pk", "tokens"))
    if tokens:
        TokenHold.objects.filter(pk__in=tokens).update(settled_at=now)
        TokenWindow.objects.filter(pk=window_id).update(held_tokens=F("held_tokens") - sum(tokens.values()))
    return len(tokens)


def _refusal(window: _Window, tokens: int, now: datetime) -> QuotaExceeded:
    row = TokenWindow.objects.get(pk=window.id)
    whole = window.limit + row.granted_tokens
    left = max(0, whole - row.used_tokens - row.held_tokens)
    resets_at = row.ends_at.astimezone(find_zone(window.zone_name, default=settings.TIME_ZONE))
    values = {
        "tokens": tokens,
        "limit": whole,
        "left": left,
        "date": f"{resets_at:%Y-%m-%d}",
        "time": f"{resets_at:%H:%M}",
    }
    return QuotaExceeded(
        lazy(_in_words, str)(values),
        limit=window.limit,
        granted=row.granted_tokens,
        used=row.used_tokens,
        held=row.held_tokens,
        left=left,
        resets_at=row.ends_at.isoformat(),
        retry_after_seconds=max(1, (row.ends_at - now).total_seconds()),
    )


def _in_words(values: Mapping[str, object]) -> str:
    """Say it in the language of whoever is answered: the thread that refuses knows none."""
    text = gettext(
        "This needs about %(tokens)d tokens, and of this week's %(limit)d there are %(left)d left."
        " The quota starts anew on %(date)s at %(time)s."
    )
    return text % values
