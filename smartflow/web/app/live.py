"""GET /app/events: tells open pages that their user's tasks changed, as raw ASGI beside Django (docs/adr/0015).

An open page is one coroutine that waits. One look a second serves all of them together: a query for the revisions of
all users who are followed, and now and then one for their sessions. Nobody follows: nothing is asked.
"""

import asyncio
import io
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from time import monotonic
from typing import Any

from django.core.handlers.asgi import ASGIRequest
from django.db import DatabaseError, InterfaceError

from smartflow.accounts.queries import find_live_sessions
from smartflow.api.client_address import client_address
from smartflow.api.database_threads import DatabaseThreads
from smartflow.api.exception_handler import error_response, log_failure
from smartflow.api.throttling import check_rate
from smartflow.kernel.clock import Clock
from smartflow.kernel.errors import Unavailable
from smartflow.kernel.sse import PING, encode_event
from smartflow.kernel.text import noop as _
from smartflow.observability.request_id import accept_request_id
from smartflow.web.app.session import COOKIE, user_of_cookie
from tasks.queries import find_revision, list_revisions

logger = logging.getLogger(__name__)

PATH = "/app/events"
# Longer: pages learn later of what another device did. Shorter: more queries, the same for one page as for a thousand.
LOOK_SECONDS = 1.0
# How long a page of an ended session is still told that something changed; what changed it cannot read any more.
SESSION_SECONDS = 10.0
FLUSH_SECONDS = 0.5

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class TooManyPages(Unavailable):
    """The user has as many pages open in this process as one may, or all users together."""

    code = "40033"
    message = _("Too many pages are open. Close one of them.")


@dataclass(frozen=True, kw_only=True)
class LiveLimits:
    """What settings decide about open pages."""

    most: int
    most_of_user: int
    ping_seconds: float
    slow_seconds: float


class Follower:
    """One open page: which revision it was told of, and what it is to be sent."""

    __slots__ = (
        "_receive",
        "_send",
        "is_over",
        "is_ping_due",
        "news",
        "seen",
        "sending_since",
        "sent_at",
        "session_id",
        "task",
        "user_id",
        "wake",
    )

    def __init__(self, *, user_id: int, session_id: str, seen: str, receive: Receive, send: Send) -> None:
        self.user_id, self.session_id, self.seen = user_id, session_id, seen
        self.news: str | None = None
        self.is_ping_due = self.is_over = False
        self.sent_at = monotonic()
        self.sending_since: float | None = None
        self.wake = asyncio.Event()
        self.task: asyncio.Task[Any] | None = asyncio.current_task()
        self._receive, self._send = receive, send

    def tell(self, revision: str) -> None:
        """Let the page know of a revision that it was not told of."""
        if revision != self.seen:
            self.news = revision
            self.wake.set()

    def end(self) -> None:
        """Let the stream end; the browser comes back by itself if it may."""
        self.is_over = True
        self.wake.set()

    def has_left(self) -> bool:
        """Tell whether the browser has gone, without waiting for it."""
        waiting: Any = self._receive()
        try:
            waiting.send(None)
        except StopIteration as answer:
            return bool(answer.value["type"] == "http.disconnect")
        except OSError:
            return True
        waiting.close()
        return False

    async def follow(self) -> None:
        """Send what there is to tell until it is over."""
        # Not all at once when a process is started again.
        await self._deliver(f"retry: {random.randint(500, 2500)}\n\n".encode())  # noqa: S311
        while not self.is_over:
            if self.news is not None:
                self.seen, self.news = self.news, None
                await self._deliver(encode_event("tasks", event_id=self.seen))
            elif self.is_ping_due:
                await self._deliver(PING)
            self.wake.clear()
            if self.news is None and not self.is_over:
                await self.wake.wait()
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _deliver(self, content: bytes) -> None:
        self.is_ping_due = False
        self.sending_since = monotonic()
        await self._send({"type": "http.response.body", "body": content, "more_body": True})
        self.sending_since, self.sent_at = None, monotonic()


class LiveTasks:
    """All open pages of this process."""

    def __init__(self, *, database: DatabaseThreads, limits: LiveLimits, clock: Clock) -> None:
        self._database = database
        self._limits = limits
        self._clock = clock
        self._followers: set[Follower] = set()
        self._count_of_user: Counter[int] = Counter()
        self._looking: asyncio.Task[None] | None = None
        self._is_closing = False

    @staticmethod
    def serves(path: str) -> bool:
        """Tell whether a path is the stream's."""
        return path == PATH

    @property
    def count(self) -> int:
        """How many pages are open."""
        return len(self._followers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = ASGIRequest(scope, io.BytesIO())
        request_id = accept_request_id(request.headers.get("X-Request-ID"))
        if scope["method"] != "GET":
            await _send_empty(send, 405, {"Allow": "GET"})
            return
        try:
            follower = await self._admit(request, receive, send)
        except Exception as error:
            status, _body, headers = error_response(error)
            log_failure(error, status)
            await _send_empty(send, status, headers)
            return
        try:
            await send(_head(request_id))
            await follower.follow()
        except OSError:
            pass  # the browser has gone
        except asyncio.CancelledError:
            if not follower.is_over:
                raise
        finally:
            self._discard(follower)

    async def close(self) -> None:
        """End every stream, so that the server may stop; browsers come back to whatever serves them then."""
        self._is_closing = True
        for follower in self._followers:
            follower.end()
        until = monotonic() + FLUSH_SECONDS
        while self._followers and monotonic() < until:
            await asyncio.sleep(0.01)
        for follower in list(self._followers):
            _cut(follower)
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    async def _admit(self, request: ASGIRequest, receive: Receive, send: Send) -> Follower:
        """Check who asks and what they have seen, in one visit to the database's threads, and count them in."""
        cookie = request.COOKIES.get(COOKIE)
        meta = request.META
        address = client_address(peer=meta.get("REMOTE_ADDR"), forwarded_for=meta.get("HTTP_X_FORWARDED_FOR"))

        def look() -> tuple[int, str, str]:
            user = user_of_cookie(cookie, now=self._clock())
            check_rate(group="read", user_id=user.user_id, address=address)
            return user.user_id, user.session_id, find_revision(user_id=user.user_id)

        user_id, session_id, revision = await self._database.run(look)
        self._check_room(user_id)
        seen = request.headers.get("Last-Event-ID") or request.GET.get("after")
        follower = Follower(
            user_id=user_id,
            session_id=session_id,
            seen=revision if seen is None else seen[:64],
            receive=receive,
            send=send,
        )
        follower.tell(revision)
        self._followers.add(follower)
        self._count_of_user[user_id] += 1
        if self._looking is None:
            self._looking = asyncio.ensure_future(self._look())
        return follower

    def _check_room(self, user_id: int) -> None:
        if self._count_of_user[user_id] >= self._limits.most_of_user:
            self._drop_gone(user_id)
        is_full = self._is_closing or len(self._followers) >= self._limits.most
        if is_full or self._count_of_user[user_id] >= self._limits.most_of_user:
            raise TooManyPages(retry_after_seconds=random.randint(1, 5))  # noqa: S311 - so that not all return at once

    def _drop_gone(self, user_id: int) -> None:
        for follower in [one for one in self._followers if one.user_id == user_id and one.has_left()]:
            follower.end()
            self._discard(follower)

    def _discard(self, follower: Follower) -> None:
        if follower in self._followers:
            self._followers.discard(follower)
            self._count_of_user[follower.user_id] -= 1
            if not self._count_of_user[follower.user_id]:
                del self._count_of_user[follower.user_id]

    async def _look(self) -> None:
        """Go round while somebody follows."""
        sessions_at = monotonic() + SESSION_SECONDS
        while self._followers:
            await asyncio.sleep(LOOK_SECONDS)
            followers = list(self._followers)
            is_time = monotonic() >= sessions_at
            try:
                await self._tell_revisions(followers)
                if is_time:
                    await self._end_of_ended(followers)
            except (DatabaseError, InterfaceError):
                logger.info("The database did not say what changed; open pages are told when it does")
            except Exception:
                logger.exception("Open pages could not be told what changed")
            if is_time:
                sessions_at = monotonic() + SESSION_SECONDS
            self._care_for(followers)
        self._looking = None

    async def _tell_revisions(self, followers: Iterable[Follower]) -> None:
        users = {follower.user_id for follower in followers}
        revisions = await self._database.run(list_revisions, user_ids=users)
        for follower in followers:
            follower.tell(revisions.get(follower.user_id, ""))

    async def _end_of_ended(self, followers: Iterable[Follower]) -> None:
        ids = {follower.session_id for follower in followers}
        live = await self._database.run(find_live_sessions, session_ids=ids, now=self._clock())
        for follower in followers:
            if follower.session_id not in live:
                follower.end()

    def _care_for(self, followers: Iterable[Follower]) -> None:
        """Let pings be sent, and let go of who has left or does not take what is sent."""
        now = monotonic()
        for follower in followers:
            if follower.sending_since is not None:
                if now - follower.sending_since >= self._limits.slow_seconds:
                    _cut(follower)
            elif now - follower.sent_at >= self._limits.ping_seconds:
                follower.is_ping_due = True
                follower.wake.set()
                if follower.has_left():
                    follower.end()


def _cut(follower: Follower) -> None:
    follower.is_over = True
    if follower.task is not None:
        follower.task.cancel()


def _head(request_id: str) -> dict[str, Any]:
    headers = {
        "content-type": "text/event-stream; charset=utf-8",
        "cache-control": "no-cache, no-transform",
        "x-accel-buffering": "no",
        "content-encoding": "identity",
        "x-request-id": request_id,
    }
    pairs = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    return {"type": "http.response.start", "status": 200, "headers": pairs}


async def _send_empty(send: Send, status: int, headers: dict[str, str]) -> None:
    shown = {name: value for name, value in headers.items() if name != "WWW-Authenticate"} | {
        "Cache-Control": "no-store"
    }
    pairs = [(name.lower().encode(), value.encode("latin-1")) for name, value in shown.items()]
    await send({"type": "http.response.start", "status": status, "headers": [*pairs, (b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})
