"""Every write of accounts: registering, and the life of a token session.

Security events (a refresh token used twice) go to the logger `smartflow.security`, which operators may alert on.
"""

import json
import logging
from collections.abc import Mapping
from datetime import datetime

from django.conf import settings
from django.contrib.auth.hashers import make_password
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import IntegrityError, connection, transaction
from django.utils.translation import gettext

from smartflow.accounts.contracts import AuthenticatedUser, Client, Profile, TokenPair
from smartflow.accounts.models import TokenSession, User
from smartflow.accounts.queries import SessionEnded, get_profile
from smartflow.accounts.quota_window import is_zone
from smartflow.accounts.tokens import (
    Claims,
    ClaimsInvalid,
    TokenRefused,
    WrongTokenType,
    issue_access_token,
    issue_pair,
    read_refresh_token,
)
from smartflow.kernel.errors import Conflict, Forbidden, Invalid, NotFound
from smartflow.kernel.ids import new_uuid
from smartflow.kernel.text import noop as _

security = logging.getLogger("smartflow.security")

# Bytes, not characters: what the columns and the hasher are promised.
MAX_BYTES = {"username": 45, "password": 229, "phone_number": 18}

# In the order given and by primary key: a scan would wait for rows that others have locked.
_ADD_MYSQL = (
    "UPDATE JSON_TABLE(%s, '$[*]' COLUMNS (id BIGINT PATH '$[0]', tokens BIGINT PATH '$[1]')) AS added"
    " STRAIGHT_JOIN users FORCE INDEX (PRIMARY) ON users.id = added.id SET token_usage = token_usage + added.tokens"
)
_ADD_SQLITE = (
    "UPDATE users SET token_usage = token_usage + added.tokens FROM (SELECT value ->> 0 AS id, value ->> 1 AS tokens"
    " FROM json_each(%s)) AS added WHERE users.id = added.id"
)


class FieldMissing(Invalid):
    """A required field is blank."""

    code = "40004"
    message = _("Something required is missing.")


class FieldTooLong(Invalid):
    """A field has more bytes than its column may hold."""

    code = "40006"
    message = _("Something in the request is too long.")


class FieldRefused(Invalid):
    """A field has a value that can't be accepted."""

    code = "40005"
    message = _("Something in the request is not valid.")


class UsernameTaken(Conflict):
    """Another account has this name."""

    code = "40003"
    message = _("This username is taken. Choose another one.")


class WrongCredentials(Forbidden):
    """Unknown name, wrong password or switched-off account: one answer, so that names can't be collected."""

    code = "40007"
    message = _("The username or the password is wrong.")


class RefreshTokenRefused(Forbidden):
    """Forged, expired, or used before."""

    code = "40015"
    message = _("The refresh token is not valid any more. Sign in again.")


class UserNotFound(NotFound):
    """There is no such user."""

    message = _("This user does not exist.")


class SessionNotFound(NotFound):
    """The user has no such session."""

    message = _("You have no such session.")


def register_user(*, username: str, password: str, phone_number: str = "") -> int:
    """
    Create an account and return its id.

    Transaction: opens its own, after the slow hash.
    Twice:       the second time raises UsernameTaken, also when both run at once (unique constraint).
    Raises:      FieldMissing 40004, FieldTooLong 40006, FieldRefused 40005, UsernameTaken 40003; each names the field.
    """
    username = User.normalize_username(username).strip()
    _check_texts({"username": username, "password": password, "phone_number": phone_number})
    if not username.isprintable():
        raise FieldRefused(fields={"username": gettext("Use visible characters only.")})
    user = User(username=username, phone_number=phone_number)
    _check_password(password, user)
    user.set_password(password)
    try:
        with transaction.atomic():
            user.save(force_insert=True)
    except IntegrityError as error:
        raise UsernameTaken(fields={"username": gettext("Choose another name.")}) from error
    return user.id


def change_time_zone(*, user_id: int, time_zone: str) -> Profile:
    """
    Set the zone the user's days begin in, "" for the installation's; return the account as it is then.

    Transaction: one UPDATE. The running quota window keeps its end.
    Twice:       safe.
    Raises:      FieldRefused 40005 for a name that is no IANA zone.
    """
    if time_zone and not is_zone(time_zone):
        hint = gettext("Use the name of a time zone such as Asia/Shanghai or Europe/Berlin.")
        raise FieldRefused(fields={"time_zone": hint})
    User.objects.filter(pk=user_id).update(time_zone=time_zone)
    return get_profile(user_id=user_id)


def open_session(*, username: str, password: str, client: Client, now: datetime) -> TokenPair:
    """
    Sign in: check the password and open a session.

    Transaction: opens its own, after the slow hash.
    Twice:       each time opens one more session.
    Raises:      FieldMissing 40004; WrongCredentials 40007 after equal work for unknown names.
    """
    _check_present({"username": username, "password": password})
    user = User.objects.filter(username=User.normalize_username(username).strip()).first()
    if user is None:
        # Without the hash an unknown name would be answered faster than a known one.
        make_password(password)
        raise WrongCredentials
    if not user.check_password(password) or not user.is_active:
        raise WrongCredentials
    session_id = new_uuid()
    pair, refresh_jti = issue_pair(user_id=user.id, session_id=session_id, now=now)
    with transaction.atomic():
        User.objects.filter(pk=user.pk).update(last_login=now)
        TokenSession.objects.create(
            id=session_id,
            user_id=user.id,
            refresh_jti=refresh_jti,
            user_agent=client.user_agent[:255],
            ip_address=client.ip_address,
            created_at=now,
            refreshed_at=now,
            expires_at=now + settings.REFRESH_TOKEN_LIFETIME,
        )
    return pair


def rotate_session(*, refresh_token: str, now: datetime) -> TokenPair:
    """
    Exchange a refresh token for the next pair of the same session.

    Transaction: opens its own and commits before it raises, so that a revocation is never rolled back.
    Twice:       a token is good once. A second use, also a lost race, is theft until proven otherwise: the whole
                 session is revoked and a security event logged.
    Raises:      FieldMissing 40004, RefreshTokenRefused 40015, WrongTokenType 40016, SessionEnded 40017.
    """
    _check_present({"refresh_token": refresh_token})
    try:
        claims = read_refresh_token(refresh_token.strip(), now=now)
    except WrongTokenType:
        raise
    except (TokenRefused, ClaimsInvalid) as error:
        raise RefreshTokenRefused from error
    pair, next_jti = issue_pair(user_id=claims.user_id, session_id=claims.session_id, now=now)
    with transaction.atomic(durable=True):
        is_rotated = _advance(claims, next_jti, now)
        was_reused = not is_rotated and _revoke_if_live(claims, now)
    if was_reused:
        fields = {"event": "refresh_reuse", "sid": claims.session_id, "user_id": claims.user_id}
        security.warning("A refresh token was used twice; its session is revoked.", extra=fields)
        raise RefreshTokenRefused
    if not is_rotated:
        raise _why_not_rotated(claims)
    return pair


def prolong_session(*, session_id: str, now: datetime) -> bool:
    """
    Let a session that is in use live its whole length again, from now; return whether it lives.

    Transaction: one guarded UPDATE: what has ended stays ended.
    Twice:       safe.
    """
    live = TokenSession.objects.filter(pk=session_id, revoked_at__isnull=True, expires_at__gt=now)
    return bool(live.update(refreshed_at=now, expires_at=now + settings.REFRESH_TOKEN_LIFETIME))


def lend_access_token(*, by: AuthenticatedUser, now: datetime) -> str:
    """
    Return an access token of the session that asks, for the scripts of its page.

    Transaction: none; writes nothing.
    Twice:       each token lives its own quarter of an hour, and no longer than the session.
    """
    return issue_access_token(user_id=by.user_id, session_id=by.session_id, now=now)


def end_session(*, by: AuthenticatedUser, session_id: str, now: datetime, reason: str = "logout") -> None:
    """
    End one of the user's sessions; its tokens are refused from now on.

    Transaction: one guarded UPDATE.
    Twice:       safe; the first ending stays recorded.
    Raises:      SessionNotFound 40400, also for another user's session.
    """
    own = TokenSession.objects.filter(pk=session_id, user_id=by.user_id)
    if not own.filter(revoked_at__isnull=True).update(revoked_at=now, revoke_reason=reason) and not own.exists():
        raise SessionNotFound


def end_all_sessions(*, by: AuthenticatedUser, keep_current: bool, now: datetime, reason: str = "ended_by_user") -> int:
    """
    End all of the user's live sessions, or all but the one that asks; return how many ended.

    Transaction: one guarded UPDATE.
    Twice:       safe; the second time ends none.
    """
    live = TokenSession.objects.filter(user_id=by.user_id, revoked_at__isnull=True, expires_at__gt=now)
    if keep_current:
        live = live.exclude(pk=by.session_id)
    return live.update(revoked_at=now, revoke_reason=reason)


def lock_user(*, user_id: int, now: datetime) -> None:
    """
    Lock a user out: no sign-in, and no session of before is good any more, not even after an unlocking.

    Transaction: opens its own.
    Twice:       safe.
    Raises:      UserNotFound 40400.
    """
    with transaction.atomic():
        # The user first, as a rotation does.
        if not User.objects.filter(pk=user_id).update(is_active=False):
            raise UserNotFound
        _end_of_locked(user_id, now)


def unlock_user(*, user_id: int, now: datetime) -> None:
    """
    Let a locked user sign in again.

    Transaction: opens its own. Ends the session that was opened in the moment of the locking and escaped it.
    Twice:       safe; nothing happens to who is not locked.
    Raises:      UserNotFound 40400.
    """
    with transaction.atomic():
        if User.objects.filter(pk=user_id, is_active=False).update(is_active=True):
            _end_of_locked(user_id, now)
        elif not User.objects.filter(pk=user_id).exists():
            raise UserNotFound


def create_admin(*, username: str, password: str) -> bool:
    """
    Create the first operator unless the account exists; return whether it was created.

    Transaction: opens its own.
    Twice:       safe, also at once: the second time changes nothing.
    Raises:      UsernameTaken when an ordinary user has the name, because the installation then has no operator.
    """
    try:
        with transaction.atomic():
            User.objects.create_superuser(username, password)
    except IntegrityError as error:
        if not User.objects.filter(username=username, is_superuser=True).exists():
            raise UsernameTaken from error
        return False
    return True


def _end_of_locked(user_id: int, now: datetime) -> None:
    live = TokenSession.objects.filter(user_id=user_id, revoked_at__isnull=True)
    live.update(revoked_at=now, revoke_reason="user_locked")


def _check_present(values: dict[str, str]) -> None:
    blank = [name for name, value in values.items() if not value.strip()]
    if blank:
        hint = gettext("Give this field a value: it is required and may not be empty.")
        raise FieldMissing(fields=dict.fromkeys(blank, hint))


def _check_texts(values: dict[str, str]) -> None:
    _check_present({name: values[name] for name in ("username", "password")})
    hints = {
        name: gettext("Use at most %(limit)d bytes; it has %(size)d.") % {"limit": MAX_BYTES[name], "size": size}
        for name, value in values.items()
        if (size := len(value.encode())) > MAX_BYTES[name]
    }
    if hints:
        raise FieldTooLong(fields=hints)


def _check_password(password: str, user: User) -> None:
    try:
        validate_password(password, user)
    except ValidationError as error:
        raise FieldRefused(fields={"password": " ".join(error.messages)}) from error


def _advance(claims: Claims, next_jti: str, now: datetime) -> bool:
    """Make the next refresh token the only good one. One guarded UPDATE, so of two requests at once one wins."""
    return bool(
        TokenSession.objects.filter(
            pk=claims.session_id,
            user_id=claims.user_id,
            refresh_jti=claims.jti,
            revoked_at__isnull=True,
            expires_at__gt=now,
            user_id__in=User.objects.filter(pk=claims.user_id, is_active=True).values("pk"),
        ).update(refresh_jti=next_jti, refreshed_at=now, expires_at=now + settings.REFRESH_TOKEN_LIFETIME)
    )


def _revoke_if_live(claims: Claims, now: datetime) -> bool:
    """Revoke the session whose present refresh token is another than the one shown; tell whether it was live."""
    return bool(
        TokenSession.objects.filter(
            pk=claims.session_id, user_id=claims.user_id, revoked_at__isnull=True, expires_at__gt=now
        )
        .exclude(refresh_jti=claims.jti)
        .update(revoked_at=now, revoke_reason="refresh_reuse")
    )


def _why_not_rotated(claims: Claims) -> Forbidden:
    session = TokenSession.objects.select_related("user").filter(pk=claims.session_id, user_id=claims.user_id).first()
    if session is not None and (session.revoked_at is not None or not session.user.is_active):
        return SessionEnded()
    return RefreshTokenRefused()


def add_token_usage(*, tokens_by_user: Mapping[int, int]) -> None:
    """
    Add tokens to the users' sums of rule B, in one statement.

    Transaction: the caller's, which writes the same numbers to the conversations. Twice: adds twice; the caller dedups.
    """
    added = sorted((user_id, tokens) for user_id, tokens in tokens_by_user.items() if tokens)
    if added:
        with connection.cursor() as cursor:
            cursor.execute(_ADD_MYSQL if connection.vendor == "mysql" else _ADD_SQLITE, [json.dumps(added)])


def prune_sessions(*, expired_before: datetime, limit: int = 1000) -> int:
    """Delete sessions that expired before then, at most `limit`, by primary key; return how many."""
    old = TokenSession.objects.filter(expires_at__lt=expired_before).order_by("expires_at", "id")
    ids = list(old.values_list("id", flat=True)[:limit])
    deleted, _rows = TokenSession.objects.filter(id__in=ids).delete() if ids else (0, {})
    return deleted
