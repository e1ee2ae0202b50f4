"""The readers of this process: how many there may be, what each is sent, and who is cut off.

An open tail is one coroutine that waits for its log. One ticker for all of them sends pings, notices who has left,
and cuts off who does not take what is sent; nothing is kept for a reader but its position.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from time import monotonic
from typing import Any

from chat.runs.document import Position
from chat.runs.log import RunLog
from smartflow.kernel.errors import Conflict, Unavailable
from smartflow.kernel.sse import PING
from smartflow.kernel.text import noop as _

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

TICK_SECONDS = 0.5
# A reader that has seen more than is known here waits so long for the rest before it is given a snapshot: Redis brings
# it at once, the database within a second.
AHEAD_SECONDS = 1.5
# What was sent to a reader that is cut off has so long to leave.
FLUSH_SECONDS = 0.5


class TooManyTails(Unavailable):
    """This process has as many readers as it may."""

    code = "50301"
    message = _("Too many answers are being read at the moment. Please try again shortly.")


class TooManyTailsOfUser(Conflict):
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
        "head",
        "is_cut",
        "is_sending",
        "language",
        "log",
        "looked_at",
        "place",
        "sent_at",
        "user_id",
    )

    def __init__(self, *, log: RunLog, user_id: int, language: str, receive: Receive, send: Send) -> None:
        self.log = log
        self.user_id = user_id
        self.language = language
        self.place = Position(log.attempt, 0)
        self.sent_at = self.looked_at = monotonic()
        self.is_sending = False
        self.is_cut = False
        self.head: MutableMapping[str, Any] | None = None
        self._receive = receive
        self._send = send
        self._task = asyncio.current_task()

    def has_left(self) -> bool:
        """Tell whether the client has gone, without waiting for it and without a task that would."""
        waiting: Any = self._receive()
        try:
            waiting.send(None)
        except StopIteration as answer:
            return bool(answer.value["type"] == "http.disconnect")
        waiting.close()
        return False

    def cut(self, *, is_slow: bool = False) -> None:
        """Let it end without an end mark; what a slow one was sent and did not take is thrown away."""
        self.is_cut = True
        if is_slow and self._task is not None:
            self._task.cancel()
        else:
            self.log.wake()

    async def follow(self, *, ping_seconds: float) -> None:
        """Send events as they come, a ping while there is none, until the end or until it is cut or gone."""
        try:
            await self._begin()
            while not self.is_cut:
                changed = self.log.changed()
                if self._is_known_to_have_left(ping_seconds):
                    return
                frames = await self._next_frames()
                if self.log.end_of_run is not None and self.place.units >= self.log.shown:
                    return await self._deliver(frames + self.log.last_frames(language=self.language), more=False)
                if frames:
                    await self._deliver(frames)
                    continue
                if monotonic() - self.sent_at >= ping_seconds:
                    await self._deliver(PING)
                await _wait_for(changed)
        except asyncio.CancelledError:
            if not self.is_cut:
                raise
        await self._abort()

    async def _begin(self) -> None:
        head, self.head = self.head, None
        if head is not None:
            await self._send(head)

    def _is_known_to_have_left(self, seconds: float) -> bool:
        if monotonic() - self.looked_at < seconds:
            return False
        self.looked_at = monotonic()
        return self.has_left()

    async def _next_frames(self) -> bytes:
        log, place = self.log, self.place
        if place.attempt == log.attempt and place.units <= log.shown:
            frames, units = log.frames_after(place.units)
            if frames:
                self.place = Position(log.attempt, units)
            return frames
        await self._wait_while_ahead()
        if self.place.attempt == log.attempt and self.place.units <= log.shown:
            return b""
        self.place = Position(log.attempt, log.shown)
        return log.whole()

    async def _wait_while_ahead(self) -> None:
        """Give what this reader has seen elsewhere a moment to arrive here."""
        log, until = self.log, monotonic() + AHEAD_SECONDS
        while self._is_ahead() and not self.is_cut and log.end_of_run is None and monotonic() < until:
            await asyncio.wait({log.changed()}, timeout=until - monotonic())

    def _is_ahead(self) -> bool:
        return (self.place.attempt, self.place.units) > (self.log.attempt, self.log.shown)

    async def _deliver(self, content: bytes, *, more: bool = True) -> None:
        self.sent_at = monotonic()
        self.is_sending = True
        await self._send({"type": "http.response.body", "body": content, "more_body": more})
        self.is_sending = False

    async def _abort(self) -> None:
        """Close the connection, so that the client sees that the answer is not whole. ASGI has no word for this."""
        transport = getattr(getattr(self._send, "__self__", None), "transport", None)
        if transport is None:
            raise ConnectionAbortedError("the reader is cut off")
        if not self.is_sending:
            transport.close()
        until = monotonic() + FLUSH_SECONDS
        while not self.is_sending and not self.has_left() and monotonic() < until:
            await asyncio.sleep(0.01)
        transport.abort()
        await asyncio.sleep(0)  # the server learns of it, and does not complain of an unfinished answer


async def _wait_for(changed: "asyncio.Future[None]") -> None:
    """Wait for a future that others wait for too; the cancellation of one of them is not this one's."""
    try:
        await changed
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise


class Tails:
    """All readers of this process."""

    def __init__(self, *, limits: TailLimits) -> None:
        self._limits = limits
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
            await tail.follow(ping_seconds=self._limits.ping_seconds)
        finally:
            self._discard(tail)

    def cut_followers(self) -> None:
        """Begin to close: cut off who reads runs of other processes; they go on there."""
        self._is_closing = True
        for tail in self._tails:
            if not tail.log.is_owned:
                tail.cut()

    async def close(self) -> None:
        """Cut off who is left."""
        self._is_closing = True
        for tail in self._tails:
            tail.cut(is_slow=tail.is_sending)
        if self._ticking is not None:
            self._ticking.cancel()
            await asyncio.gather(self._ticking, return_exceptions=True)

    def _discard(self, tail: Tail) -> None:
        if tail in self._tails:
            self._tails.discard(tail)
            self._count_of_user[tail.user_id] -= 1
            if not self._count_of_user[tail.user_id]:
                del self._count_of_user[tail.user_id]

    async def _tick(self) -> None:
        while self._tails:
            await asyncio.sleep(TICK_SECONDS)
            now = monotonic()
            silent: set[RunLog] = set()
            for tail in self._tails:
                waited = now - tail.sent_at
                if tail.is_sending and waited >= self._limits.slow_seconds:
                    tail.cut(is_slow=True)
                elif not tail.is_sending and waited >= self._limits.ping_seconds:
                    silent.add(tail.log)
            for log in silent:
                log.wake()
        self._ticking = None
