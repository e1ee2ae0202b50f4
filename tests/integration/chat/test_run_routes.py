"""The raw ASGI routes of runs, without a server: who may read what from where, and what fails as JSON."""

import asyncio
import json
import sqlite3
from dataclasses import replace
from datetime import timedelta
from functools import partial
from time import monotonic

import pytest
from django.conf import settings
from django.db import OperationalError, connection

from chat.api import run_routes
from chat.api.run_routes import CHAT_PATH
from chat.contracts import RunProgress
from chat.models import AgentChat, ChatRun
from chat.operations import claim_run, delete_conversation, finish_run, list_stop_requests, save_progress
from chat.runs import tails
from outbox.models import OutboxMessage
from smartflow.accounts.models import TokenSession
from smartflow.api.database_threads import DatabaseThreads
from smartflow.kernel.clock import utc_now
from smartflow.kernel.sse import PING
from tests.factories import sign_in
from tests.integration.chat.raw_requests import LIMITS, Answer, Server
from tests.integration.chat.turns import ask, result

pytestmark = pytest.mark.django_db(transaction=True)


async def answer(token, body, database):
    """Send one message to fresh routes and return status, headers and body."""
    server = Server(database)
    sent = await server.ask("POST", CHAT_PATH, token=token, body=body)
    assert server.executor.live_count == 0
    await server.close()
    return sent.status, sent.headers, sent.json


async def until(condition, seconds=5):
    """Wait for what other tasks bring about."""
    deadline = monotonic() + seconds
    while not condition():
        assert monotonic() < deadline, "it did not come true"
        await asyncio.sleep(0.01)


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


# --- following --------------------------------------------------------------------------------------------------------


@pytest.fixture
async def server(database):
    made = Server(database)
    yield made
    await made.close()


def events_path(run):
    return f"/api/v1/agent/runs/{run.run_id}/events"


async def test_a_message_that_comes_again_reads_the_first_ones_answer(server, database, alice, token):
    run = await database.run(partial(ask, alice, "Hello", key="k1"))
    await database.run(finish_run, run=run, result=result("Hi there"), now=utc_now())

    again = await server.ask("POST", CHAT_PATH, token=token, body={"message": "Hello"}, x_idempotency_key="k1")
    other = await server.ask("POST", CHAT_PATH, token=token, body={"message": "Bye"}, x_idempotency_key="k1")
    wrong = await server.ask("POST", CHAT_PATH, token=token, body={"message": "Hello"}, x_idempotency_key="k 1")

    assert (again.status, again.text, again.events[-1][1]) == (200, "Hi there", None)
    assert again.headers["x-idempotency-replayed"] == "true"
    assert (again.headers["x-run-id"], again.headers["x-conversation-id"]) == (run.run_id, run.conversation_id)
    assert (other.status, other.json["status"]) == (422, "42200")
    assert (wrong.status, wrong.json["status"], list(wrong.json["fields"])) == (400, "40005", ["X-Idempotency-Key"])
    assert await database.run(ChatRun.objects.count) == 1


async def test_events_of_a_run_that_nobody_executes_here_come_from_the_database(server, database, alice, token):
    run = await database.run(ask, alice)
    await database.run(finish_run, run=run, result=result("Hi there"), now=utc_now())

    whole = await server.ask("GET", events_path(run), token=token)
    rest = await server.ask("GET", events_path(run), token=token, query="after=1-3")

    assert [event_id for event_id, _data in whole.events] == ["1-8", "1-9", "1-10"]
    assert (whole.text, whole.events[-1][1], whole.is_whole) == ("Hi there", None, True)
    assert (rest.text, rest.headers["x-run-id"]) == ("there", run.run_id)


async def test_events_are_followed_in_the_database_until_the_end(server, database, alice, token):
    run = await database.run(ask, alice)
    reading = asyncio.create_task(server.ask("GET", events_path(run), token=token))
    for text in ("Hi ", "Hi there"):
        progress = RunProgress(text=text)
        await database.run(save_progress, saves=[(run, progress)], lease_seconds=15, now=utc_now())
        await until(lambda text=text: server.logs.find(run.run_id) and server.logs.find(run.run_id).text == text)
    await database.run(finish_run, run=run, result=result("Hi there you"), now=utc_now())

    read = await reading

    assert [event_id for event_id, _data in read.events] == ["1-3", "1-8", "1-12", "1-13", "1-14"]
    assert (read.text, read.is_whole) == ("Hi there you", True)


async def test_reader_of_an_attempt_that_was_given_up_is_told_to_replace_it(server, database, alice, token):
    run = await database.run(ask, alice, now=utc_now() - timedelta(seconds=60))
    taken = await database.run(claim_run, run_id=run.run_id, owner="other", lease_seconds=15, now=utc_now())
    await database.run(finish_run, run=taken, result=result("Hi there"), now=utc_now())

    read = await server.ask("GET", events_path(run), token=token, last_event_id="1-4")

    assert taken.attempt == 2
    assert read.events[0][0] == "2-8"
    assert read.events[0][1]["extra"] == {"kind": "snapshot", "display_mode": "replace", "events": []}
    assert (read.text, read.events[-1][1]) == ("Hi there", None)


async def test_the_header_counts_before_the_address(server, database, alice, token):
    run = await database.run(ask, alice)
    await database.run(finish_run, run=run, result=result("Hi there"), now=utc_now())

    read = await server.ask("GET", events_path(run), token=token, query="after=1-0", last_event_id="1-6")

    assert read.text == "re"


async def test_somebody_elses_run_does_not_exist(server, database, alice, bob):
    run = await database.run(ask, alice)
    stranger = (await database.run(sign_in, bob)).access_token

    for method, what in (("GET", "events"), ("POST", "stop"), ("POST", "regenerate"), ("POST", "continue")):
        answer = await server.ask(method, f"/api/v1/agent/runs/{run.run_id}/{what}", token=stranger)
        assert (answer.status, answer.json["status"]) == (404, "40402")


async def test_run_of_a_deleted_conversation_does_not_exist(server, database, alice, token):
    run = await database.run(ask, alice)
    await database.run(finish_run, run=run, result=result(), now=utc_now())
    deletion = {"user_id": alice.pk, "conversation_id": run.conversation_id, "now": utc_now()}
    await database.run(lambda: delete_conversation(**deletion))

    assert (await server.ask("GET", events_path(run), token=token)).status == 404


async def test_wrong_method_and_missing_token_are_refused(server, database, alice):
    run = await database.run(ask, alice)

    wrong = await server.ask("POST", events_path(run))
    missing = await server.ask("GET", events_path(run))

    assert (wrong.status, wrong.headers["allow"]) == (405, "GET")
    assert (missing.status, missing.json["status"]) == (401, "40009")


async def test_a_stranger_is_told_nothing_of_what_else_is_wrong(server, database, alice):
    run = await database.run(ask, alice)

    position = await server.ask("GET", events_path(run), **{"Last-Event-ID": "nonsense"})
    media_type = await server.ask("POST", CHAT_PATH, body={"message": "Hi"}, **{"Content-Type": "text/plain"})

    assert (position.status, position.json["status"]) == (401, "40009")
    assert (media_type.status, media_type.json["status"]) == (401, "40009")


async def test_both_positions_are_checked_though_one_counts(server, database, alice, token):
    run = await database.run(ask, alice)

    answer = await server.ask("GET", events_path(run), token=token, query="after=nonsense", **{"Last-Event-ID": "1-3"})

    assert (answer.status, answer.json["status"]) == (400, "40005")
    assert list(answer.json["fields"]) == ["after"]


async def test_readers_beyond_the_users_cap_are_refused_until_one_has_left(server, database, alice, token):
    run = await database.run(ask, alice)
    answers = [Answer() for _ in range(LIMITS.most_of_user)]
    readers = [asyncio.create_task(server.ask("GET", events_path(run), token=token, into=one)) for one in answers]
    await until(lambda: server.tails.count == LIMITS.most_of_user)

    refused = await server.ask("GET", events_path(run), token=token)
    answers[0].has_left = True
    later = asyncio.create_task(server.ask("GET", events_path(run), token=token))
    await until(lambda: server.tails.count == LIMITS.most_of_user and readers[0].done())

    assert (refused.status, refused.json["status"], refused.headers["retry-after"]) == (429, "40033", "2")
    await database.run(finish_run, run=run, result=result("Hi"), now=utc_now())
    assert (await later).text == "Hi"
    assert [(await reader).is_whole for reader in readers[1:]] == [True, True]


async def test_message_takes_the_place_of_a_reader_that_has_left_unnoticed(database, alice, token):
    server = Server(database, is_separate=True, limits=replace(LIMITS, most_of_user=1))
    run, left = await database.run(ask, alice), Answer()
    reader = asyncio.create_task(server.ask("GET", events_path(run), token=token, into=left))
    await until(lambda: server.tails.count == 1)
    left.has_left = True

    sent = Answer()
    sending = asyncio.create_task(server.ask("POST", CHAT_PATH, token=token, body={"message": "Hi"}, into=sent))
    await until(lambda: sent.status)

    assert (sent.status, await database.run(ChatRun.objects.count)) == (200, 2)
    sent.has_left = True
    server.tails.drop_gone(alice.pk)
    await asyncio.gather(reader, sending)
    await server.close()


@pytest.mark.parametrize("position", ["1-9", "1-10"])
async def test_reader_that_has_seen_the_end_is_given_the_end_mark_alone(position, server, database, alice, token):
    run = await database.run(ask, alice)
    await database.run(finish_run, run=run, result=result("Hi there"), now=utc_now())

    rest = await server.ask("GET", events_path(run), token=token, last_event_id=position)
    beyond = await server.ask("GET", events_path(run), token=token, last_event_id="1-11")

    assert (rest.events, rest.is_whole) == ([("1-10", None)], True)
    assert [event_id for event_id, _data in beyond.events] == ["1-8", "1-9", "1-10"]


async def test_readers_beyond_the_process_cap_are_refused_for_a_moment(database, alice, token):
    server = Server(database, limits=replace(LIMITS, most=1))
    run = await database.run(ask, alice)
    reader = asyncio.create_task(server.ask("GET", events_path(run), token=token))
    await until(lambda: server.tails.count == 1)

    refused = await server.ask("GET", events_path(run), token=token)

    assert (refused.status, refused.json["status"]) == (503, "50301")
    assert 1 <= int(refused.headers["retry-after"]) <= 5
    await database.run(finish_run, run=run, result=result("Hi"), now=utc_now())
    assert (await reader).is_whole
    await server.close()


async def test_reader_whose_session_has_ended_is_cut_off_and_others_read_on(
    server, database, alice, token, bob, monkeypatch
):
    monkeypatch.setattr(tails, "SESSION_SECONDS", 0.0)
    runs = [await database.run(ask, user) for user in (alice, bob)]
    tokens = [token, (await database.run(sign_in, bob)).access_token]
    readers = [
        asyncio.create_task(server.ask("GET", events_path(run), token=one))
        for run, one in zip(runs, tokens, strict=True)
    ]
    await until(lambda: server.tails.count == 2)
    await database.run(TokenSession.objects.filter(user=alice).update, revoked_at=utc_now())

    with pytest.raises(ConnectionAbortedError):
        await asyncio.wait_for(readers[0], 5)
    again = await server.ask("GET", events_path(runs[0]), token=token)

    assert (again.status, again.json["status"], server.tails.count) == (401, "40017", 1)
    await database.run(finish_run, run=runs[1], result=result("Hi"), now=utc_now())
    assert (await readers[1]).text == "Hi"


async def test_silent_run_is_pinged(database, alice, token):
    server = Server(database, limits=replace(LIMITS, ping_seconds=0.1))
    run = await database.run(ask, alice)
    answer = Answer()
    reader = asyncio.create_task(server.ask("GET", events_path(run), token=token, into=answer))

    await until(lambda: answer.parts.count(PING) == 2)
    answer.has_left = True
    await reader
    assert (answer.is_whole, server.tails.count) == (False, 0)
    await server.close()


# --- separate executors, stopping -------------------------------------------------------------------------------------


async def test_chat_with_separate_executors_leaves_the_run_to_one_and_follows_it(database, alice, token):
    server = Server(database, is_separate=True)
    reading = asyncio.create_task(server.ask("POST", CHAT_PATH, token=token, body={"message": "Hello"}))
    waiting = []
    while not waiting:
        waiting = await database.run(lambda: list(ChatRun.objects.filter(owner="", state="queued")))
    taken = await database.run(claim_run, run_id=waiting[0].id, owner="other", lease_seconds=15, now=utc_now())
    await database.run(finish_run, run=taken, result=result("Hi there"), now=utc_now())

    read = await reading

    assert (taken.attempt, read.text, read.is_whole) == (1, "Hi there", True)
    assert read.headers["x-run-id"] == taken.run_id
    assert read.headers["x-conversation-id"] == taken.conversation_id
    await server.close()


async def test_stop_of_a_run_that_nobody_has_taken_up_ends_it_at_once(database, alice, token):
    server = Server(database, is_separate=True)
    run = await database.run(ask, alice, owner="")

    answers = [await server.ask("POST", f"/api/v1/agent/runs/{run.run_id}/stop", token=token) for _ in range(2)]

    for answer in answers:
        assert (answer.status, answer.json["data"]) == (200, {"run_id": run.run_id, "state": "stopped"})
    await server.close()


async def test_stop_that_its_owner_does_not_heed_answers_soon_and_is_kept(server, database, alice, token, monkeypatch):
    monkeypatch.setattr(run_routes, "STOP_PATIENCE_SECONDS", 0.1)
    run = await database.run(ask, alice)

    answer = await server.ask("POST", f"/api/v1/agent/runs/{run.run_id}/stop", token=token)

    assert answer.json["data"] == {"run_id": run.run_id, "state": "queued"}
    assert await database.run(list_stop_requests, owner=run.owner) == [run.run_id]
