"""The raw ASGI routes where the database fails: the answer is 503 as JSON, and nothing exists."""

import json
import sqlite3

import pytest
from django.conf import settings
from django.db import OperationalError, connection

from chat.api.run_routes import CHAT_PATH
from chat.models import AgentChat, ChatRun
from outbox.models import OutboxMessage
from smartflow.api.database_threads import DatabaseThreads
from tests.factories import sign_in
from tests.integration.chat.raw_requests import Server

pytestmark = pytest.mark.django_db(transaction=True)


async def answer(token, body, database):
    """Send one message to fresh routes and return status, headers and body."""
    server = Server(database)
    sent = await server.ask("POST", CHAT_PATH, token=token, body=body)
    assert server.executor.live_count == 0
    await server.close()
    return sent.status, sent.headers, sent.json


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

    assert (status, body["status"], headers["content-type"]) == (503, "50300", "application/json")
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
