"""What may leave the accounts app: plain values, no Django."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, kw_only=True)
class AuthenticatedUser:
    """Who a good access token speaks for. Stands where Django REST framework expects `request.user`."""

    user_id: int
    session_id: str
    username: str
    is_authenticated: bool = True

    @property
    def pk(self) -> int:
        """The name throttles look for."""
        return self.user_id


@dataclass(frozen=True, kw_only=True)
class Client:
    """Where a sign-in comes from, as the user sees it in the list of sessions."""

    user_agent: str = ""
    ip_address: str | None = None


@dataclass(frozen=True, kw_only=True)
class TokenPair:
    """What a sign-in or a rotation hands out. Both tokens carry the same session id."""

    access_token: str
    refresh_token: str


@dataclass(frozen=True, kw_only=True)
class SessionView:
    """One live session in its owner's list."""

    id: str
    created_at: datetime
    refreshed_at: datetime
    user_agent: str
    ip_address: str | None
    is_current: bool


@dataclass(frozen=True, kw_only=True)
class Profile:
    """What a user sees of their own account."""

    id: int
    username: str
    token_limit: int
    token_usage: int
