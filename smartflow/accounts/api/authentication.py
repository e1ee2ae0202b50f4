"""Tells Django REST framework who is asking, by the same check the raw streams use."""

from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

from smartflow.accounts.contracts import AuthenticatedUser
from smartflow.accounts.queries import TokenMissing, authenticate_token, find_token
from smartflow.kernel.clock import utc_now


class SessionTokenAuthentication(BaseAuthentication):
    """No token leaves the request anonymous, for the permission to judge; a bad one is refused at once."""

    def authenticate(self, request: Request) -> tuple[AuthenticatedUser, str] | None:
        """Return the user and their session id, None without a token."""
        header = request.headers.get("Authorization")
        if find_token(header=header) is None:
            return None
        user = authenticate_token(header=header, now=utc_now())
        return user, user.session_id

    def authenticate_header(self, request: Request) -> str:
        """Make REST framework answer 401, not 403, when nobody is signed in."""
        return "Bearer"


def signed_in_user(request: Request) -> AuthenticatedUser:
    """Return who is asking, typed; for views that need a token. Raises: TokenMissing 40009."""
    user: object = request.user
    if not isinstance(user, AuthenticatedUser):
        raise TokenMissing
    return user
