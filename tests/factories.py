"""Makes rows for tests, through the product's own operations wherever there is one."""

from smartflow.accounts.contracts import Client, TokenPair
from smartflow.accounts.models import User
from smartflow.accounts.operations import open_session
from smartflow.kernel.clock import utc_now

PASSWORD = "korrekt-Pferd-9-Batterie"


def make_user(username: str, **fields) -> User:
    """Return a new user whose password is PASSWORD."""
    return User.objects.create_user(username, PASSWORD, **fields)


def sign_in(user: User, *, now=None, user_agent: str = "tests") -> TokenPair:
    """Return the tokens of a new session of the user."""
    client = Client(user_agent=user_agent, ip_address="192.0.2.1")
    return open_session(username=user.username, password=PASSWORD, client=client, now=now or utc_now())
