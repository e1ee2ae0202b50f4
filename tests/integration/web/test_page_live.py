"""The page's stream: who may follow, what is told and when, what it costs, and how it ends."""

import asyncio

import pytest
from asgiref.sync import sync_to_async
from django.db import OperationalError
from django.http import HttpResponse

from smartflow.accounts.operations import end_all_sessions
from smartflow.accounts.queries import authenticate_token
from smartflow.api.database_threads import DatabaseThreads
from smartflow.kernel.clock import utc_now
from smartflow.web.app import live
from smartflow.web.app.live import PATH, LiveLimits, LiveTasks
from smartflow.web.app.session import COOKIE, give_cookie
from tasks.queries import find_revision
from tests.factories import sign_in
from tests.task_rows import add_task

pytestmark = pytest.mark.django_db(transaction=True)
LIMITS = LiveLimits(most=10, most_of_user=2, ping_seconds=60, slow_seconds=0.05)
PATIENCE_SECONDS = 10


class CountingThreads(DatabaseThreads):
    """Counts what is asked of the database."""

    asked = 0

    async def run(self, function, /, *args, **kwargs):
        self.asked += 1
        return await super().run(function, *args, **kwargs)


class Window:
    """One open page: what it was sent, and whether it is still there."""

    def __init__(self, tasks, cookie, *, query="", method="GET", is_stuck=False, **headers):
        self.status, self.headers, self.body, self.is_whole = 0, {}, b"", False
        self.changed = asyncio.Event()
        self.leave = asyncio.Event()
        self._is_stuck = is_stuck
        sent = {"cookie": f"{COOKIE}={cookie}", **{name.replace("_", "-"): value for name, value in headers.items()}}
        scope = {
            "type": "http",
            "method": method,
            "path": PATH,
            "query_string": query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in sent.items()],
            "client": ("192.0.2.1", 5),
        }
        self.task = asyncio.ensure_future(tasks(scope, self._receive, self._send))

    async def _receive(self):
        await self.leave.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message):
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            self.body += message["body"]
            self.is_whole = not message.get("more_body", False)
        self.changed.set()
        if self._is_stuck and b"data:" in self.body:
            await asyncio.Event().wait()

    async def until(self, is_so):
        async def wait():
            while not is_so(self):
                self.changed.clear()
                await self.changed.wait()

        await asyncio.wait_for(wait(), PATIENCE_SECONDS)

    async def opened(self):
        await self.until(lambda window: window.body)
        return self

    @property
    def told(self):
        """The revisions that it was told of."""
        return [line.removeprefix("id: ") for line in self.body.decode().splitlines() if line.startswith("id: ")]


@pytest.fixture(autouse=True)
def _fast(monkeypatch):
    monkeypatch.setattr(live, "LOOK_SECONDS", 0.05)


@pytest.fixture
def database():
    threads = CountingThreads(threads=2)
    yield threads
    threads.close()


@pytest.fixture
def tasks(database):
    return LiveTasks(database=database, limits=LIMITS, clock=utc_now)


def cookie_of(user, token=None):
    by = authenticate_token(header=token or sign_in(user).access_token, now=utc_now())
    answer = HttpResponse()
    give_cookie(answer, session_id=by.session_id, now=utc_now())
    return answer.cookies[COOKIE].value


async def later(function, *args, **kwargs):
    return await sync_to_async(function)(*args, **kwargs)


async def test_live_tells_the_user_and_nobody_else(tasks, alice, bob):
    hers, his = await later(cookie_of, alice), await later(cookie_of, bob)
    mine, theirs = await Window(tasks, hers).opened(), await Window(tasks, his).opened()
    await later(add_task, alice)
    await mine.until(lambda window: window.told)
    assert mine.told == [await later(find_revision, user_id=alice.pk)]
    assert b"data: tasks\n" in mine.body
    assert theirs.told == []
    assert mine.headers["content-type"].startswith("text/event-stream")
    await tasks.close()


async def test_live_asks_once_for_all_and_nothing_when_nobody_follows(database, alice, monkeypatch):
    monkeypatch.setattr(live, "LOOK_SECONDS", 0.2)
    limits = LiveLimits(most=10, most_of_user=2, ping_seconds=0.1, slow_seconds=5)
    tasks = LiveTasks(database=database, limits=limits, clock=utc_now)
    cookie = await later(cookie_of, alice)
    windows = [await Window(tasks, cookie).opened() for _ in range(2)]
    database.asked = 0
    await later(add_task, alice)
    for window in windows:
        await window.until(lambda one: one.told)
    assert database.asked <= 2
    for window in windows:
        window.leave.set()
    await asyncio.wait_for(tasks._looking, PATIENCE_SECONDS)  # it ends by itself
    assert tasks.count == 0
    assert (await Window(tasks, cookie).opened()).status == 200  # and begins again
    await tasks.close()


@pytest.mark.parametrize("way", ["last_event_id", "query"])
async def test_live_tells_at_once_who_was_away(tasks, alice, way):
    await later(add_task, alice)
    cookie, now = await later(cookie_of, alice), await later(find_revision, user_id=alice.pk)

    def come_back(seen):
        return (
            Window(tasks, cookie, last_event_id=seen)
            if way == "last_event_id"
            else Window(tasks, cookie, query=f"after={seen}")
        )

    behind, up_to_date = come_back("an-older-one"), come_back(now)
    await behind.until(lambda window: window.told == [now])
    await up_to_date.opened()
    assert up_to_date.told == []
    await tasks.close()


async def test_live_ends_when_the_session_does(tasks, alice, monkeypatch):
    monkeypatch.setattr(live, "SESSION_SECONDS", 0.1)
    token = (await later(sign_in, alice)).access_token
    window = await Window(tasks, await later(cookie_of, alice, token)).opened()
    by = await later(authenticate_token, header=token, now=utc_now())
    await later(end_all_sessions, by=by, keep_current=False, now=utc_now())
    await asyncio.wait_for(window.task, PATIENCE_SECONDS)
    assert window.is_whole
    assert tasks.count == 0
    refused = Window(tasks, await later(cookie_of_session, by.session_id))
    await asyncio.wait_for(refused.task, PATIENCE_SECONDS)
    assert refused.status == 401
    await tasks.close()


def cookie_of_session(session_id):
    answer = HttpResponse()
    give_cookie(answer, session_id=session_id, now=utc_now())
    return answer.cookies[COOKIE].value


@pytest.mark.parametrize(("cookie", "method", "status"), [("", "GET", 401), ("x:y:z", "GET", 401), ("", "POST", 405)])
async def test_live_refuses_who_is_not_signed_in(tasks, db, cookie, method, status):
    window = Window(tasks, cookie, method=method)
    await asyncio.wait_for(window.task, PATIENCE_SECONDS)
    assert (window.status, window.body, tasks.count) == (status, b"", 0)


async def test_live_bounds_a_users_windows_and_gives_left_places_away(tasks, alice):
    cookie = await later(cookie_of, alice)
    first, _second = [await Window(tasks, cookie).opened() for _ in range(2)]
    third = Window(tasks, cookie)
    await asyncio.wait_for(third.task, PATIENCE_SECONDS)
    assert third.status == 429
    assert int(third.headers["retry-after"]) > 0
    first.leave.set()
    await asyncio.sleep(0)
    assert (await Window(tasks, cookie).opened()).status == 200
    await tasks.close()


async def test_live_pings_and_lets_go_of_who_has_left(database, alice):
    limits = LiveLimits(most=10, most_of_user=2, ping_seconds=0.05, slow_seconds=5)
    tasks = LiveTasks(database=database, limits=limits, clock=utc_now)
    window = await Window(tasks, await later(cookie_of, alice)).opened()
    await window.until(lambda one: b": ping" in one.body)
    window.leave.set()
    await asyncio.wait_for(window.task, PATIENCE_SECONDS)
    assert tasks.count == 0
    await tasks.close()


async def test_live_cuts_off_who_does_not_take_what_is_sent(tasks, alice):
    window = await Window(tasks, await later(cookie_of, alice), is_stuck=True).opened()
    await later(add_task, alice)
    await asyncio.wait_for(window.task, PATIENCE_SECONDS)
    assert not window.is_whole
    assert tasks.count == 0
    await tasks.close()


async def test_live_goes_on_telling_after_the_database_was_away(tasks, alice, monkeypatch):
    window = await Window(tasks, await later(cookie_of, alice)).opened()
    failed = asyncio.Event()
    loop = asyncio.get_running_loop()

    def fail(**_asked):
        loop.call_soon_threadsafe(failed.set)
        raise OperationalError("gone away")

    with monkeypatch.context() as patch:
        patch.setattr(live, "list_revisions", fail)
        await asyncio.wait_for(failed.wait(), PATIENCE_SECONDS)
    await later(add_task, alice)
    await window.until(lambda one: one.told)
    await tasks.close()


async def test_live_ends_every_stream_when_the_process_does(tasks, alice):
    window = await Window(tasks, await later(cookie_of, alice)).opened()
    await tasks.close()
    await asyncio.wait_for(window.task, PATIENCE_SECONDS)
    assert window.is_whole
    late = Window(tasks, await later(cookie_of, alice))
    await asyncio.wait_for(late.task, PATIENCE_SECONDS)
    assert late.status == 429
