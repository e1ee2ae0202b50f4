"""Signs and reads tokens. Knows the two secrets and the claims; knows no database.

Called by operations (issue, read refresh tokens) and queries (read access tokens). HS256 only, a secret for each kind:
whoever gets one secret can forge one kind.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

import jwt
from django.conf import settings
from rest_framework_simplejwt.backends import TokenBackend
from rest_framework_simplejwt.exceptions import TokenBackendError, TokenError
from rest_framework_simplejwt.tokens import Token

from smartflow.accounts.contracts import TokenPair
from smartflow.kernel.errors import Forbidden
from smartflow.kernel.ids import is_uuid, new_uuid
from smartflow.kernel.text import noop as _

ALGORITHM = "HS256"


class TokenRefused(Forbidden):
    """A token that proves nothing."""

    code = "40011"
    message = _("The access token is not valid or has expired.")


class ClaimsInvalid(Forbidden):
    """Signed by us, but without the claims every token of ours has."""

    code = "40012"
    message = _("The token's claims are not valid.")


class WrongTokenType(Forbidden):
    """A refresh token where an access token belongs, or the other way round."""

    code = "40016"
    message = _("This is the wrong kind of token.")


@dataclass(frozen=True, kw_only=True)
class Claims:
    """What a token of ours says, checked for form."""

    user_id: int
    session_id: str
    jti: str


class _Backend(TokenBackend):
    """Checks the signature only; times are checked against the caller's `now`, not against the wall clock."""

    def decode(self, token: Any, verify: bool = True) -> dict[str, Any]:
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                self.prepared_signing_key,
                algorithms=[ALGORITHM],
                options={"verify_exp": False, "verify_iat": False, "verify_aud": False, "require": ["exp", "jti"]},
            )
        except jwt.InvalidTokenError as error:
            raise TokenBackendError("not signed by us") from error
        return claims


class _SignedToken(Token):
    """simplejwt's token with our clock, our claims and a secret of its own."""

    secret_setting: ClassVar[str]

    def __init__(self, token: Any = None, *, now: datetime) -> None:
        self._now = now
        super().__init__(token)
        if token is None:
            self.set_iat(at_time=now)
            self.set_exp(from_time=now)
            self.payload["jti"] = new_uuid()

    def get_token_backend(self) -> TokenBackend:
        return _Backend(ALGORITHM, signing_key=getattr(settings, self.secret_setting))

    def verify(self) -> None:
        self.verify_token_type()
        self.check_exp(current_time=self._now)


class AccessToken(_SignedToken):
    """Opens every door for a quarter of an hour, as long as its session lives."""

    token_type = "access_token"  # noqa: S105 - a claim's value
    lifetime = settings.ACCESS_TOKEN_LIFETIME
    secret_setting = "JWT_ACCESS_SECRET"  # noqa: S105


class RefreshToken(_SignedToken):
    """Good once, for the next pair."""

    token_type = "refresh_token"  # noqa: S105
    lifetime = settings.REFRESH_TOKEN_LIFETIME
    secret_setting = "JWT_REFRESH_SECRET"  # noqa: S105


def issue_access_token(*, user_id: int, session_id: str, now: datetime) -> str:
    """Return a fresh access token alone."""
    token = AccessToken(now=now)
    token["user_id"], token["sid"] = user_id, session_id
    return str(token)


def issue_pair(*, user_id: int, session_id: str, now: datetime) -> tuple[TokenPair, str]:
    """Return a fresh pair for the session, and the refresh token's jti that the session must remember."""
    tokens = [kind(now=now) for kind in (AccessToken, RefreshToken)]
    for token in tokens:
        token["user_id"] = user_id
        token["sid"] = session_id
    access, refresh = tokens
    return TokenPair(access_token=str(access), refresh_token=str(refresh)), str(refresh["jti"])


def read_access_token(token: str, *, now: datetime) -> Claims:
    """Return an access token's claims, or raise TokenRefused, WrongTokenType or ClaimsInvalid."""
    return _read(token, kind=AccessToken, other=RefreshToken, now=now)


def read_refresh_token(token: str, *, now: datetime) -> Claims:
    """Return a refresh token's claims, or raise TokenRefused, WrongTokenType or ClaimsInvalid."""
    return _read(token, kind=RefreshToken, other=AccessToken, now=now)


def _read(token: str, *, kind: type[_SignedToken], other: type[_SignedToken], now: datetime) -> Claims:
    try:
        payload = kind(token.encode(errors="replace"), now=now).payload
    except TokenError as error:
        if _is_signed_as(other, token) or _is_signed_as(kind, token, wrong_type=True):
            raise WrongTokenType from error
        raise TokenRefused from error
    return _checked(payload)


def _is_signed_as(kind: type[_SignedToken], token: str, *, wrong_type: bool = False) -> bool:
    """Tell whether the secret of `kind` signed the token; with `wrong_type`, and whether it claims another type."""
    backend = _Backend(ALGORITHM, signing_key=getattr(settings, kind.secret_setting))
    try:
        payload = backend.decode(token.encode(errors="replace"))
    except TokenBackendError:
        return False
    return not wrong_type or payload.get("token_type") != kind.token_type


def _checked(payload: dict[str, Any]) -> Claims:
    user_id, session_id, jti = (payload.get(name) for name in ("user_id", "sid", "jti"))
    if not isinstance(user_id, int) or isinstance(user_id, bool) or user_id <= 0:
        raise ClaimsInvalid
    if not (isinstance(session_id, str) and is_uuid(session_id) and isinstance(jti, str) and is_uuid(jti)):
        raise ClaimsInvalid
    return Claims(user_id=user_id, session_id=session_id, jti=jti)
