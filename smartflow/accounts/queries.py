"""Every read of accounts. `authenticate_token` is the one check behind every request, streams included."""

from collections.abc import Collection
from datetime import datetime

from django.conf import settings
from django.db.models import QuerySet, Sum

from smartflow.accounts.contracts import AuthenticatedUser, EntryKind, Profile, QuotaView, SessionView, TokenUse
from smartflow.accounts.models import TokenLedgerEntry, TokenSession, TokenWindow, User
from smartflow.accounts.quota_window import Week, find_week, find_zone
from smartflow.accounts.tokens import ClaimsInvalid, read_access_token
from smartflow.api.rows import fetch, moment
from smartflow.kernel.errors import Forbidden, NotFound
from smartflow.kernel.text import noop as _

# Larger: a longer page for someone who signs in by script. Older sessions can still be ended all at once.
SESSIONS_SHOWN = 200
# Every request waits for it; put together by the models it took five times as long.
_FIND_SESSION = (
    "SELECT users.id, users.username, users.time_zone FROM token_sessions"
    " JOIN users ON users.id = token_sessions.user_id WHERE token_sessions.id = %s"
    " AND token_sessions.revoked_at IS NULL AND token_sessions.expires_at > %s AND users.is_active = 1"
)
# What a user is told about where the tokens went; the rest of the lists is small change.
PURPOSES_SHOWN = 20
CONVERSATIONS_SHOWN = 10


class TokenMissing(Forbidden):
    """The request carries no access token."""

    code = "40009"
    message = _("Sign in first: the access token is missing.")


class SessionEnded(Forbidden):
    """The token is genuine, but its session is over."""

    code = "40017"
    message = _("This session has ended. Sign in again.")


def authenticate_token(*, header: str | None, now: datetime) -> AuthenticatedUser:
    """
    Return who the Authorization header speaks for.

    Transaction: none; exactly one query, joined with the user. The database is asked each time, so nothing can
                 outlive a revocation.
    Raises:      TokenMissing 40009, TokenRefused 40011, ClaimsInvalid 40012, WrongTokenType 40016,
                 SessionEnded 40017 (revoked, expired or gone session; switched-off user).
    """
    token = find_token(header=header)
    if token is None:
        raise TokenMissing
    claims = read_access_token(token, now=now)
    user = authenticate_session(session_id=claims.session_id, now=now)
    if user.user_id != claims.user_id:
        raise ClaimsInvalid
    return user


def authenticate_session(*, session_id: str, now: datetime) -> AuthenticatedUser:
    """
    Return whose session it is; for who has proved already that the id was given to them.

    Transaction: none; exactly one query, joined with the user.
    Raises:      SessionEnded 40017 (revoked, expired or gone session; switched-off user).
    """
    session = fetch(_FIND_SESSION, session_id, moment(now))
    if session is None:
        raise SessionEnded
    user_id, username, time_zone = session
    return AuthenticatedUser(
        user_id=user_id,
        session_id=session_id,
        username=username,
        time_zone=find_zone(time_zone, default=settings.TIME_ZONE).key,
    )


def find_live_sessions(*, session_ids: Collection[str], now: datetime) -> set[str]:
    """Return those of the sessions that have not ended. Plan: one query by primary key."""
    live = TokenSession.objects.filter(
        pk__in=session_ids, revoked_at__isnull=True, expires_at__gt=now, user__is_active=True
    )
    return set(live.values_list("pk", flat=True))


def find_token(*, header: str | None) -> str | None:
    """Return the token of `Bearer <token>` (any case) or of a bare token; None for anything else."""
    words = (header or "").split()
    if len(words) == 1 and words[0].lower() != "bearer":
        return words[0]
    if len(words) == 2 and words[0].lower() == "bearer":
        return words[1]
    return None


def get_profile(*, user_id: int) -> Profile:
    """Return the user's own view of their account."""
    row = User.objects.filter(pk=user_id).values("id", "username", "token_limit", "token_usage", "time_zone").first()
    if row is None:
        raise NotFound
    row["time_zone"] = find_zone(row["time_zone"], default=settings.TIME_ZONE).key
    return Profile(**row)


def get_quota(*, user_id: int, now: datetime) -> QuotaView:
    """
    Return what the user may use in the current window, what is used and held, and what used it.

    Transaction: none; four queries, each by an index, over one window's rows of the ledger at most. A window that no
                 use has opened yet is shown as it would be opened now.
    """
    user = User.objects.filter(pk=user_id).values_list("token_limit", "time_zone").first()
    if user is None:
        raise NotFound
    limit, zone = user[0], find_zone(user[1], default=settings.TIME_ZONE)
    newest = TokenWindow.objects.filter(user_id=user_id).order_by("-starts_at").first()
    week = find_week(last=Week(newest.starts_at, newest.ends_at) if newest else None, zone=zone, now=now)
    window = newest if newest and newest.starts_at == week.starts_at else TokenWindow()
    rows = TokenLedgerEntry.objects.filter(
        user_id=user_id, created_at__gte=week.starts_at, created_at__lt=week.ends_at
    ).exclude(kind=EntryKind.GRANT)
    return QuotaView(
        limit=limit,
        granted=window.granted_tokens,
        used=window.used_tokens,
        held=window.held_tokens,
        left=max(0, limit + window.granted_tokens - window.used_tokens - window.held_tokens),
        window_starts_at=week.starts_at,
        resets_at=week.ends_at,
        time_zone=zone.key,
        used_by_purpose=_uses(rows, "purpose", PURPOSES_SHOWN),
        used_by_conversation=_uses(rows.exclude(conversation_id=""), "conversation_id", CONVERSATIONS_SHOWN),
    )


def _uses(rows: QuerySet[TokenLedgerEntry], name: str, limit: int) -> tuple[TokenUse, ...]:
    """Return the biggest sums by that column; what operators adjusted has no purpose and is named after its kind."""
    sums = rows.values_list(name, "kind").annotate(tokens=Sum("total_tokens")).order_by("-tokens", name)
    return tuple(TokenUse(name=value or kind, tokens=tokens) for value, kind, tokens in sums[:limit])


def list_sessions(*, user_id: int, current_session_id: str, now: datetime) -> list[SessionView]:
    """Return the user's live sessions, newest first, at most SESSIONS_SHOWN."""
    rows = TokenSession.objects.filter(user_id=user_id, revoked_at__isnull=True, expires_at__gt=now).order_by(
        "-created_at", "-id"
    )
    return [
        SessionView(
            id=row.id,
            created_at=row.created_at,
            refreshed_at=row.refreshed_at,
            user_agent=row.user_agent,
            ip_address=row.ip_address,
            is_current=row.id == current_session_id,
        )
        for row in rows[:SESSIONS_SHOWN]
    ]
