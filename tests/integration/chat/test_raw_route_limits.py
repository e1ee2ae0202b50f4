"""The raw ASGI routes of runs keep the limits of every other route: how often, and what a body holds."""

import pytest

from chat.api.run_routes import CHAT_PATH
from smartflow.api import throttling
from smartflow.api.database_threads import DatabaseThreads
from smartflow.api.token_buckets import LocalBuckets
from tests.factories import sign_in
from tests.integration.chat.raw_requests import Server

pytestmark = pytest.mark.django_db(transaction=True)
UNKNOWN = "/api/v1/agent/runs/00000000-0000-4000-8000-000000000000"


@pytest.fixture
def token(alice):
    return sign_in(alice).access_token


@pytest.fixture
def database():
    threads = DatabaseThreads(threads=1)
    yield threads
    threads.close()


@pytest.fixture
def _two_of_each(settings, monkeypatch):
    buckets = LocalBuckets()
    monkeypatch.setattr(throttling, "_kept_in", lambda url: buckets)
    settings.RATE_LIMITS = True
    settings.RATE_LIMIT_GROUPS = settings.RATE_LIMIT_GROUPS | {"agent": (2, 3600.0), "read": (2, 3600.0)}


@pytest.mark.usefixtures("_two_of_each")
async def test_messages_and_stops_share_a_bucket_and_readers_have_another(token, database):
    server = Server(database)
    asked = [
        await server.ask("POST", CHAT_PATH, token=token, body={"message": ""}),
        await server.ask("POST", f"{UNKNOWN}/stop", token=token),
        await server.ask("POST", CHAT_PATH, token=token, body={"message": "Hi"}),
        await server.ask("GET", f"{UNKNOWN}/events", token=token),
    ]
    await server.close()

    assert [answer.status for answer in asked] == [400, 404, 429, 404]
    refused = asked[2]
    assert refused.json["status"] == "40033"
    assert 1790 <= int(refused.headers["retry-after"]) <= 1800
    assert (refused.headers["ratelimit-limit"], refused.headers["ratelimit-remaining"]) == ("2", "0")


@pytest.mark.usefixtures("_two_of_each")
async def test_every_answer_says_what_is_left(token, database):
    server = Server(database)
    error = await server.ask("POST", f"{UNKNOWN}/stop", token=token)
    stream = await server.ask("POST", CHAT_PATH, token=token, body={"message": "Hi"})
    await server.close()
    assert (error.status, error.headers["ratelimit-remaining"]) == (404, "1")
    assert (stream.status, stream.headers["ratelimit-remaining"]) == (200, "0")
    assert "x-run-id" in stream.headers


@pytest.mark.parametrize(
    ("message", "code"), [({"a": [[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]}, "40005"), ("a\0", "40005")]
)
async def test_a_body_beyond_a_bound_is_refused_by_the_name_of_what_is_too_much(token, database, message, code):
    server = Server(database)
    answer = await server.ask("POST", CHAT_PATH, token=token, body={"message": message})
    await server.close()
    assert (answer.status, answer.json["status"]) == (400, code)
    assert next(iter(answer.json["fields"])).startswith("message")
