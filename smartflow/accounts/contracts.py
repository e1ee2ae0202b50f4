"""What may leave the accounts app: plain values, no Django."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


@dataclass(frozen=True, kw_only=True)
class AuthenticatedUser:
    """Who a good access token speaks for. Stands where Django REST framework expects `request.user`."""

    user_id: int
    session_id: str
    username: str
    # The zone in which this user's clock times are meant: their own, or the installation's.
    time_zone: str = ""
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
    time_zone: str


class EntryKind(StrEnum):
    """Why a row of the ledger is there: a call to a model, or an operator's decision."""

    USAGE = "usage"
    GRANT = "grant"
    ADJUST = "adjust"


@dataclass(frozen=True, kw_only=True)
class ModelCall:
    """One call to a model and what it took. `total_tokens` is what is charged; the others say of what it consists."""

    call_id: str
    purpose: str
    model: str
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    total_tokens: int = 0
    is_estimated: bool = False


@dataclass(frozen=True, kw_only=True)
class SumDifference:
    """A sum that is not what its rows add up to."""

    table: str
    id: int
    column: str
    stored: int
    computed: int


@dataclass(frozen=True, kw_only=True)
class ComparedRows:
    """One step of comparing: what differs in it, and the last primary key it looked at; None behind the last row."""

    differences: tuple[SumDifference, ...]
    last_id: int | None


@dataclass(frozen=True, kw_only=True)
class TokenUse:
    """Tokens that one purpose or one conversation took."""

    name: str
    tokens: int


@dataclass(frozen=True, kw_only=True)
class QuotaView:
    """
    What a user may see of their quota now.

    `used` and `held` are exact at once. The two lists come from the ledger, which follows a moment later, by the time
    of the calls: they explain `used` and need not add up to it.
    """

    limit: int
    granted: int
    used: int
    held: int
    left: int
    window_starts_at: datetime
    resets_at: datetime
    time_zone: str
    used_by_purpose: tuple[TokenUse, ...]
    used_by_conversation: tuple[TokenUse, ...]
