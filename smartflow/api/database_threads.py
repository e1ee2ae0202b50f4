"""Where raw ASGI code meets the database: a few threads, each with one connection, however many streams are open.

A stream borrows a thread for the length of one operation. Django's own requests do not come through here.
"""

import asyncio
import contextvars
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

from django.db import InterfaceError, OperationalError, connection

_P = ParamSpec("_P")
_T = TypeVar("_T")

# More: more turns begin at once, and the database holds more connections per web process.
THREADS = 8
# A connection idle for longer is asked whether it is alive, so that a restarted database costs no request.
_TRUST_SECONDS = 1.0


class DatabaseThreads:
    """A bounded pool. One per process."""

    def __init__(self, *, threads: int = THREADS) -> None:
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="database")
        self._used = threading.local()
        self._broke_at = 0.0

    async def run(self, function: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """
        Call a function that uses the database and return its result.

        The caller's context (request id, language) is visible inside. Raises: whatever the function raises.
        """
        context = contextvars.copy_context()
        call = partial(self._call, partial(function, *args, **kwargs))
        return await asyncio.get_running_loop().run_in_executor(self._pool, lambda: context.run(call))

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
        """Close every connection and end the threads; waits for calls under way."""
        everyone = threading.Barrier(self._pool._max_workers + 1, timeout=10)

        def leave() -> None:
            connection.close()
            everyone.wait()

        for _ in range(self._pool._max_workers):
            self._pool.submit(leave)
        everyone.wait()
        self._pool.shutdown(wait=True)
