"""The readers of this process: how many there may be, what each is sent, and who is cut off.

An open tail is one coroutine that waits for its log. One ticker for all of them sends pings, notices who has left,
and cuts off who does not take what is sent, or whose session has ended; nothing is kept for a reader but its position.
"""

import asyncio
import logging
import random
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from time import monotonic
from typing import Any

from django.db import DatabaseError, InterfaceError

from chat.runs.document import Position
from chat.runs.log import RunLog
from smartflow.kernel.errors import Unavailable
from smartflow.kernel.sse import PING
from smartflow.kernel.text import noop as _

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
LiveSessions = Callable[[Collection[str]], Awaitable[AbstractSet[str]]]

logger = logging.getLogger(__name__)

TICK_SECONDS = 0.5
# What the system holds for a reader that does not read. Larger: it grows to megabytes for each, unless it is bounded.
SOCKET_BYTES = 64 * 1024
# A reader that has seen more than is known here waits so long for the rest before it is given a snapshot: Redis brings
# it at once, the database within a second.
AHEAD_SECONDS = 1.5
# What was sent to a reader that is cut off has so long to leave.
FLUSH_SECONDS = 0.5
# How long a reader whose session has ended may read on. Smaller: more queries, one for five hundred readers.
SESSION_SECONDS = 30.0
_SESSIONS_AT_ONCE = 500


class TooManyTails(Unavailable):
    """This process has as many readers as it may."""

    code = "50301"
    message = _("Too many answers are being read at the moment. Please try again shortly.")


class TooManyTailsOfUser(Unavailable):
    """The user reads as many answers at once as one may."""

    code = "40033"
    message = _("You are reading too many answers at once. Close one of them.")

    def __init__(self, user_id: int) -> None:
        super().__init__(retry_after_seconds=2)
        self.user_id = user_id


@dataclass(frozen=True, kw_only=True)
class TailLimits:
    """What settings decide about readers."""

    most: int
    most_of_user: int
    ping_seconds: float
    slow_seconds: float


class Tail:
    """One reader of one run."""

    __slots__ = (
        "_receive",
        "_send",
        "_task",
        "attempt",
        "head",
        "is_cut",
        "is_ping_due",
        "is_sending",
        "language",
        "log",
        "looked_at",
        "sent_at",
        "session_id",
        "units",
        "user_id",
    )

    def __init__(
        self, *, log: RunLog, user_id: int, session_id: str, language: str, receive: Receive, send: Send
    ) -> None:
        self.log = log
        self.user_id, self.session_id = user_id, session_id
        self.language = language
        self.attempt = log.attempt
        self.units = 0
        self.sent_at = self.looked_at = monotonic()
        self.is_sending = False
        self.is_ping_due = False
        self.is_cut = False
        self.head: MutableMapping[str, Any] | None = None
        self._receive = receive
        self._send = send
        self._task = asyncio.current_task()

    def go_on(self, position: Position) -> None:
        """Begin behind a position that the reader names."""
        self.attempt, self.units = position.attempt, position.units

    def has_left(self) -> bool:
        """Tell whether the client has gone, without waiting for it and without a task that would."""
        waiting: Any = self._receive()
        try:
            waiting.send(None)
        except StopIteration as answer:
            return bool(answer.value["type"] == "http.disconnect")
        except OSError:
            return True
        waiting.close()
        return False

    def cut(self, *, is_slow: bool = False) -> None:
        """Let it end without an end mark; what a slow one was sent and did not take is thrown away."""
        self.is_cut = True
        if is_slow and self._task is not None:
            self._task.cancel()
        else:
            self.log.wake()

    async def begin(self) -> None:
        """Send the answer's head, which is kept no longer."""
        self._task = asyncio.current_task()
        head, self.head = self.head, None
        if head is not None:
            await self._send(head)
        # what the edge wraps around it changes heads alone
        self._send = getattr(self._send, "__wrapped__", self._send)
        transport = self._transport()
        connection = transport.get_extra_info("socket") if transport is not None else None
        if connection is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BYTES)

    async def follow(self) -> None:
        """Send events as they come, a ping when it is due, until the end or until it is cut."""
        log = self.log
        while not self.is_cut:
            if self.units > log.shown and (frames := log.frames_behind_end(attempt=self.attempt, units=self.units)):
                return await self._deliver(frames, more=False)
            if self.attempt != log.attempt or self.units > log.shown:
                await self._replace()
            elif self.units < log.shown:
                # as _deliver does, without a call: this is where an event costs each of its readers
                frames, self.units = log.frames_after(self.units)
                self.sent_at, self.is_sending = monotonic(), True
                await self._send({"type": "http.response.body", "body": frames, "more_body": True})
                self.is_sending = False
            elif log.end_of_run is not None:
                return await self._deliver(log.last_frames(language=self.language), more=False)
            elif self.is_ping_due:
                await self._deliver(PING)
            else:
                await self._change()

    async def _change(self) -> None:
        try:
            await self.log.changed()
        except asyncio.CancelledError:
            # all readers wait for the same future, and another one was cancelled
            if self._task is None or self._task.cancelling():
                raise

    async def _replace(self) -> None:
        """Bring a reader that has seen something else to what there is; what it has seen more of may be on its way."""
        log, until = self.log, monotonic() + AHEAD_SECONDS
        while self._is_ahead() and not self.is_cut and log.end_of_run is None and monotonic() < until:
            await asyncio.wait({log.changed()}, timeout=until - monotonic())
        if not self.units:
            self.attempt = log.attempt  # it has seen nothing that could be replaced
        elif self.attempt != log.attempt or self.units > log.shown:
            self.attempt, self.units = log.attempt, log.shown
            await self._deliver(log.whole())

    def _is_ahead(self) -> bool:
        return (self.attempt, self.units) > (self.log.attempt, self.log.shown)

    async def _deliver(self, content: bytes, *, more: bool = True) -> None:
        self.is_ping_due = False
        self.sent_at, self.is_sending = monotonic(), True
        await self._send({"type": "http.response.body", "body": content, "more_body": more})
        self.is_sending = False

    async def abort(self) -> None:
        """Close the connection, so that the client sees that the answer is not whole."""
        if self.has_left():
            return
        transport = self._transport()
        if transport is None:
            raise ConnectionAbortedError("the reader is cut off")
        if not self.is_sending:
            transport.close()
        until = monotonic() + FLUSH_SECONDS
        while not self.is_sending and not self.has_left() and monotonic() < until:
            await asyncio.sleep(0.01)
        transport.abort()
        await asyncio.sleep(0)  # the server learns of it, and does not complain of an unfinished answer

    def _transport(self) -> Any:
        """Return the connection below, None where the server does not show it: ASGI has no word for it."""
        return getattr(getattr(self._send, "__self__", None), "transport", None)


class Tails:
    """All readers of this process."""

    def __init__(self, *, limits: TailLimits, live_sessions: LiveSessions) -> None:
        self._limits = limits
        self._live_sessions = live_sessions
        self._asking: asyncio.Task[None] | None = None
        self._asked_at = 0.0
        self._tails: set[Tail] = set()
        self._count_of_user: Counter[int] = Counter()
        self._ticking: asyncio.Task[None] | None = None
        self._is_closing = False

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._tails)

    def check_room(self, user_id: int) -> None:
        """Raise TooManyTails or TooManyTailsOfUser when another reader would be one too many; from any thread."""
        if self._is_closing or len(self._tails) >= self._limits.most:
            raise TooManyTails(retry_after_seconds=random.randint(1, 5))  # noqa: S311 - so that not all return at once
        if self._count_of_user[user_id] >= self._limits.most_of_user:
            raise TooManyTailsOfUser(user_id)

    def drop_gone(self, user_id: int) -> int:
        """Give up the places of the user's readers that have left unnoticed; return how many."""
        gone = [tail for tail in self._tails if tail.user_id == user_id and not tail.is_sending and tail.has_left()]
        for tail in gone:
            tail.cut()
            self._discard(tail)
        return len(gone)

    def add(self, tail: Tail) -> None:
        """Count a reader that is about to be served."""
        self._tails.add(tail)
        self._count_of_user[tail.user_id] += 1
        if self._ticking is None:
            self._ticking = asyncio.ensure_future(self._tick())

    async def serve(self, tail: Tail) -> None:
        """Let a reader read until its end."""
        try:
            await tail.begin()
            await tail.follow()
        except asyncio.CancelledError:
            if not tail.is_cut:
                raise
        finally:
            self._discard(tail)
        if tail.is_cut:
            await tail.abort()

    def cut_followers(self) -> None:
        """Begin to close: cut off who reads runs of other processes; they go on there."""
        self._is_closing = True
        for tail in self._tails:
            if not tail.log.is_owned:
                tail.cut()

    async def close(self) -> None:
        """Cut off who is left, after a moment for those whose run has ended to be told so."""
        self._is_closing = True
        for tail in self._tails:
            if tail.log.end_of_run is None and not tail.is_sending:
                tail.cut()
        until = monotonic() + FLUSH_SECONDS
        while self._tails and monotonic() < until:
            await asyncio.sleep(0.01)
        for tail in self._tails:
            tail.cut(is_slow=tail.is_sending)
        tasks = [task for task in (self._ticking, self._asking) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _discard(self, tail: Tail) -> None:
        if tail in self._tails:
            self._tails.discard(tail)
            self._count_of_user[tail.user_id] -= 1
            if not self._count_of_user[tail.user_id]:
                del self._count_of_user[tail.user_id]

    def _ask_for_ended(self, now: float) -> None:
        is_asking = self._asking is not None and not self._asking.done()
        if now - self._asked_at >= SESSION_SECONDS and not is_asking:
            self._asked_at, self._asking = now, asyncio.ensure_future(self._cut_ended())

    async def _cut_ended(self) -> None:
        """Cut off whose session has ended: where they come back, they are told so."""
        ids = sorted({tail.session_id for tail in self._tails})
        try:
            for start in range(0, len(ids), _SESSIONS_AT_ONCE):
                some = ids[start : start + _SESSIONS_AT_ONCE]
                ended = set(some).difference(await self._live_sessions(some))
                for tail in self._tails:
                    if tail.session_id in ended:
                        tail.cut()
        except (DatabaseError, InterfaceError):
            logger.info("The database did not say whose session has ended; readers read on")
        except Exception:
            logger.exception("Readers' sessions could not be looked up")

    async def _tick(self) -> None:
        self._asked_at = monotonic()
        while self._tails:
            await asyncio.sleep(TICK_SECONDS)
            now = monotonic()
            self._ask_for_ended(now)
            silent: set[RunLog] = set()
            for tail in list(self._tails):
                waited = now - tail.sent_at
                if tail.is_sending:
                    if waited >= self._limits.slow_seconds:
                        tail.cut(is_slow=True)
                elif now - tail.looked_at >= self._limits.ping_seconds and self._has_left(tail, now):
                    silent.add(tail.log)
                elif waited >= self._limits.ping_seconds - TICK_SECONDS:
                    tail.is_ping_due = True
                    silent.add(tail.log)
            for log in silent:
                log.wake()
        self._ticking = None

    def _has_left(self, tail: Tail, now: float) -> bool:
        tail.looked_at = now
        tail.is_cut = tail.is_cut or tail.has_left()
        return tail.is_cut
