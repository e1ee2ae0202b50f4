"""Fixtures every test may use. Alice owns; Bob is another user."""

import pytest
from django.db import connections
from django.utils import translation
from rest_framework.test import APIClient

from tests.factories import make_user, sign_in
from tests.workers import take_own_redis

take_own_redis()
pytest.register_assert_rewrite("outbox.testing.contract")
SLOW = ("journeys", "services")


@pytest.fixture(scope="session")
def django_db_modify_db_settings(tmp_path_factory, django_db_modify_db_settings_parallel_suffix):
    """Give SQLite a file of this run's own: threads then meet the locks of production, not those of a shared cache."""
    settings = connections["default"].settings_dict
    if connections["default"].vendor == "sqlite":
        settings["TEST"]["NAME"] = str(tmp_path_factory.mktemp("database") / "test.sqlite3")


def pytest_collection_modifyitems(items):
    """Begin with what waits most, so that it fills the time of several workers evenly."""
    items.sort(key=lambda item: not any(room in item.path.parts for room in SLOW))


@pytest.fixture(autouse=True)
def _fast_hasher(settings):
    """The product's hasher is slow on purpose; a test of it names it."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture(autouse=True)
def _no_rate_limits(settings):
    """All tests ask from one address; a test of the limits turns them on."""
    settings.RATE_LIMITS = False


@pytest.fixture(autouse=True)
def _language_of_nobody():
    """The middleware leaves a request's language behind for the thread's next one; a test's must not reach the next."""
    yield
    translation.deactivate()


@pytest.fixture
def alice(db):
    return make_user("alice")


@pytest.fixture
def bob(db):
    return make_user("bob")


@pytest.fixture
def client_of():
    """Return a function that makes a client signed in as the user, or anonymous without one."""

    def make(user=None):
        client = APIClient(raise_request_exception=False)
        if user is not None:
            client.credentials(HTTP_AUTHORIZATION=f"Bearer {sign_in(user).access_token}")
        return client

    return make


@pytest.fixture
def anonymous(client_of):
    return client_of()


@pytest.fixture
def alice_client(client_of, alice):
    return client_of(alice)


@pytest.fixture
def bob_client(client_of, bob):
    return client_of(bob)
