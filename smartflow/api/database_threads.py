"""Where ASGI code meets the database: a few threads, each with one connection, however many streams are open.

A stream borrows a thread for the length of one operation, a request of Django's for its whole length and from a pool of
its own (django_threads.py). A thread that is not needed for a while gives its connection back: readers that only wait
hold none. What looks into the database again and again has threads that give theirs back after each look.
"""

import asyncio
import contextvars
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, ParamSpec, TypeAlias, TypeVar

from django.db import InterfaceError, OperationalError, connection

_P = ParamSpec("_P")
_T = TypeVar("_T")
_Call = tuple[Future[Any], Callable[[], Any]]
_Inbox: TypeAlias = "queue.SimpleQueue[_Call | None]"

# More: more turns begin at once, and the database holds more connections per web process.
THREADS = 8
# Larger: fewer new connections when there is little to do, and more that nobody uses.
IDLE_SECONDS = 5.0
# A connection idle for longer is asked whether it is alive, so that a restarted database costs no request.
_TRUST_SECONDS = 1.0
_CLOSE_SECONDS = 10.0
# Runs that wait, stop requests and followed runs are looked for at once: none waits for another.
_LOOKING_THREADS = 3


class DatabaseThreads:
    """A bounded pool. One per process. Threads are started as they are needed."""

    def __init__(self, *, threads: int = THREADS, idle_seconds: float = IDLE_SECONDS) -> None:
        self._most = threads
        self._idle_seconds = idle_seconds
        self._lock = threading.Lock()
        self._waiting: deque[_Call] = deque()
        # The one that was needed last is needed first: with little to do, the others give their connections back.
        self._free: list[_Inbox] = []
        self._threads: dict[threading.Thread, _Inbox] = {}
        self._is_closed = False
        self._used = threading.local()
        self._broke_at = 0.0

    async def run(self, function: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """
        Call a function that uses the database and return its result.

        The caller's context (request id, language) is visible inside. Raises: whatever the function raises.
        """
        return await self._submit(partial(function, *args, **kwargs), is_urgent=False)

    async def run_ahead(self, function: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Do the same ahead of all that waits: for what is lost when it comes late, as a lease is."""
        return await self._submit(partial(function, *args, **kwargs), is_urgent=True)

    async def _submit(self, function: Callable[[], _T], *, is_urgent: bool) -> _T:
        context = contextvars.copy_context()
        future: Future[_T] = Future()
        self._put((future, partial(context.run, partial(self._call, function))), is_urgent)
        return await asyncio.wrap_future(future)

    def _put(self, call: _Call, is_urgent: bool) -> None:
        with self._lock:
            if self._is_closed:
                raise RuntimeError("the database's threads have ended")
            if self._free:
                self._free.pop().put(call)
            elif len(self._threads) < self._most:
                self._start_thread(call)
            elif is_urgent:
                self._waiting.appendleft(call)
            else:
                self._waiting.append(call)

    def _start_thread(self, call: _Call) -> None:
        inbox: _Inbox = queue.SimpleQueue()
        inbox.put(call)
        name = f"database_{len(self._threads)}"
        thread = threading.Thread(target=self._work, args=(inbox,), name=name, daemon=True)
        self._threads[thread] = inbox
        thread.start()

    def _work(self, inbox: _Inbox) -> None:
        call = inbox.get()
        while call is not None:
            _answer(*call)
            del call  # what it was given and what it returned is the caller's alone
            call = self._next_call(inbox)
        connection.close()

    def _next_call(self, inbox: _Inbox) -> _Call | None:
        with self._lock:
            if self._waiting:
                return self._waiting.popleft()
            if self._is_closed:
                return None
            self._free.append(inbox)
        if connection.connection is not None:
            try:
                return inbox.get(timeout=self._idle_seconds)
            except queue.Empty:
                connection.close()
        return inbox.get()

    def _call(self, function: Callable[[], _T]) -> _T:
        used_at = getattr(self._used, "at", 0.0)
        # What broke one thread's connection has probably broken the others': none of them costs a request more.
        is_doubtful = used_at <= max(self._broke_at, time.monotonic() - _TRUST_SECONDS)
        if connection.connection is not None and is_doubtful and not connection.is_usable():
            connection.close()
        try:
            return function()
        except (OperationalError, InterfaceError):
            self._broke_at = time.monotonic()
            connection.close()
            raise
        finally:
            self._used.at = time.monotonic()

    def close(self) -> None:
        """Close every connection and end the threads; waits for calls that were taken."""
        with self._lock:
            self._is_closed = True
            for inbox in self._free:
                inbox.put(None)
        for thread in self._threads:
            thread.join(_CLOSE_SECONDS)


def looking_threads() -> DatabaseThreads:
    """
    Return threads for what is looked for every second, and seldom found.

    In a pool with others such looks would keep a connection for ever, and two of them at the same moment two.
    """
    return DatabaseThreads(threads=_LOOKING_THREADS, idle_seconds=0.0)


def _answer(future: Future[Any], function: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = function()
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(result)
