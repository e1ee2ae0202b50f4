"""The raw ASGI endpoint where the database fails: the answer is 503 as JSON, and nothing exists."""

import json
import sqlite3

import pytest
from django.conf import settings
from django.db import OperationalError, connection

from chat.api.chat_stream import ChatStream
from chat.models import AgentChat, ChatRun
from chat.runs.executor import ExecutorLimits, RunExecutor
from chat.runs.hints import Hints
from chat.runs.logs import RunLogs
from outbox.models import OutboxMessage
from smartflow.api.database_threads import DatabaseThreads
from smartflow.kernel.clock import utc_now
from tests.factories import sign_in

pytestmark = pytest.mark.django_db(transaction=True)


class UnaskedModel:
    """Fails the test when anything goes to the model."""

    def stream(self, request):
        raise AssertionError(f"asked: {request}")

    async def aclose(self):
        """Nothing was opened."""


async def answer(token, body, database):
    """Send one request to a fresh endpoint and return status, headers and body."""
    limits = ExecutorLimits(lease_seconds=15, max_live_runs=5, max_input_tokens=1000, reserved_tokens=0)
    logs = RunLogs(database=database, hints=Hints(redis_url="", prefix="tests"))
    executor = RunExecutor(model=UnaskedModel(), database=database, clock=utc_now, limits=limits, logs=logs)
    stream = ChatStream(executor=executor, database=database, clock=utc_now, owner="tests")
    headers = [(b"authorization", f"Bearer {token}".encode()), (b"content-type", b"application/json")]
    sent = []

    async def receive():
        return {"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}

    async def send(message):
        sent.append(message)

    await stream({"type": "http", "method": "POST", "headers": headers}, receive, send)
    assert executor.live_count == 0
    return sent[0]["status"], dict(sent[0]["headers"]), json.loads(sent[1]["body"])


@pytest.fixture
def token(alice):
    return sign_in(alice).access_token


@pytest.fixture
def database():
    threads = DatabaseThreads(threads=1)
    yield threads
    threads.close()


@pytest.mark.skipif(not settings.IS_EMBEDDED_DATABASE, reason="the lock is SQLite's")
async def test_locked_database_is_503_and_nothing_exists(token, database):
    def give_up_at_once():
        connection.ensure_connection()
        connection.connection.execute("PRAGMA busy_timeout = 50")

    await database.run(give_up_at_once)
    blocker = sqlite3.connect(connection.settings_dict["NAME"], isolation_level=None)
    try:
        blocker.execute("BEGIN IMMEDIATE")
        status, headers, body = await answer(token, {"message": "Lost?"}, database)
    finally:
        blocker.close()

    assert (status, body["status"], headers[b"content-type"]) == (503, "50300", b"application/json")
    assert "locked" not in json.dumps(body)
    assert not await database.run(lambda: AgentChat.objects.exists() or ChatRun.objects.exists())


async def test_commit_that_fails_is_503_and_nothing_exists(token, database, monkeypatch):
    def fail(**_kwargs):
        raise OperationalError(2013, "Lost connection to server during query")

    monkeypatch.setattr("chat.operations.messages.append_event", fail)

    status, _headers, body = await answer(token, {"message": "Lost?"}, database)

    assert (status, body["status"]) == (503, "50300")
    assert "2013" not in json.dumps(body)
    left = await database.run(
        lambda: AgentChat.objects.count() + ChatRun.objects.count() + OutboxMessage.objects.count()
    )
    assert left == 0
