"""The raw ASGI side of the web process: its streams, and the executor behind them. Composed here, used by asgi.py."""

import asyncio
import logging
import signal
import threading
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any

from django.conf import settings

from chat.api.run_routes import RunParts, RunRoutes
from chat.llm.factory import build_chat_model
from chat.operations import Claimant
from chat.runs.executor_host import ExecutorHost, HostParts
from chat.runs.hints import Hints
from chat.runs.logs import RunLogs
from chat.runs.tails import TailLimits, Tails
from outbox.database_clock import database_now
from smartflow.accounts.queries import find_live_sessions
from smartflow.api.database_threads import DatabaseThreads, looking_threads
from smartflow.kernel.clock import utc_now
from smartflow.kernel.ids import new_uuid
from smartflow.web.app.live import LiveLimits, LiveTasks

logger = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

# How long a stopping process lets its runs go on before it ends them as interrupted. Stays below the server's
# --timeout-graceful-shutdown, which cuts readers off whether or not they were told why.
GRACE_SECONDS = 2.0
# Proxies close what is silent for a minute; a page that has gone is noticed this late.
LIVE_PING_SECONDS = 15.0


class Streams:
    """What lives as long as the server does. Made on import, started on the first request of its event loop."""

    @staticmethod
    def serves(path: str) -> bool:
        """Tell whether a path is one of a stream."""
        return LiveTasks.serves(path) or RunRoutes.serves(path)

    def __init__(self, *, owner: str) -> None:
        # a process id comes back after a restart, its lease with it; the random part does not
        self._owner = f"{owner}:{new_uuid()[:8]}"[:64]
        self._database: DatabaseThreads | None = None
        self._looks: DatabaseThreads | None = None
        self._hints: Hints | None = None
        self._logs: RunLogs | None = None
        self._host: ExecutorHost | None = None
        self._tails: Tails | None = None
        self._live: LiveTasks | None = None
        self._routes: RunRoutes | None = None
        self._ending: asyncio.Task[None] | None = None

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request of a stream."""
        if self._routes is None:
            self._routes = self._compose()
        if self._live is not None and LiveTasks.serves(scope["path"]):
            await self._live(scope, receive, send)
        else:
            await self._routes(scope, receive, send)

    async def live(self, receive: Receive, send: Send) -> None:
        """Follow the server's lifespan."""
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                self._routes = self._compose()
                self._listen_for_the_end()
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                await self._shut_down()
                await send({"type": "lifespan.shutdown.complete"})
                return

    def _compose(self) -> RunRoutes:
        self._database = DatabaseThreads()
        self._looks = looking_threads()
        self._hints = Hints(redis_url=settings.REDIS_URL, prefix=settings.OUTBOX_TOPIC_PREFIX)
        self._logs = RunLogs(database=self._looks, hints=self._hints)
        self._tails = Tails(
            limits=TailLimits(
                most=settings.CHAT_MAX_TAILS,
                most_of_user=settings.CHAT_MAX_TAILS_OF_USER,
                ping_seconds=settings.CHAT_PING_SECONDS,
                slow_seconds=settings.CHAT_SLOW_READER_SECONDS,
            ),
            live_sessions=self._find_live_sessions,
        )
        self._live = LiveTasks(
            database=self._database,
            limits=LiveLimits(
                most=settings.CHAT_MAX_TAILS,
                most_of_user=settings.CHAT_MAX_TAILS_OF_USER,
                ping_seconds=LIVE_PING_SECONDS,
                slow_seconds=settings.CHAT_SLOW_READER_SECONDS,
            ),
            clock=utc_now,
        )
        if settings.CHAT_EXECUTORS == "web":
            self._host = self._open_host(self._database, self._looks, self._logs, self._hints)
        parts = RunParts(
            database=self._database,
            logs=self._logs,
            hints=self._hints,
            tails=self._tails,
            executor=self._host.executor if self._host is not None else None,
            claimant=Claimant(
                owner=self._owner if self._host is not None else "", lease_seconds=settings.CHAT_RUN_LEASE_SECONDS
            ),
            clock=utc_now,
            lease_clock=database_now,
        )
        return RunRoutes(parts)

    async def _find_live_sessions(self, session_ids: Collection[str]) -> set[str]:
        assert self._looks is not None
        return await self._looks.run(find_live_sessions, session_ids=session_ids, now=utc_now())

    def _open_host(
        self, database: DatabaseThreads, looks: DatabaseThreads, logs: RunLogs, hints: Hints
    ) -> ExecutorHost:
        parts = HostParts(
            model=build_chat_model(), database=database, looks=looks, logs=logs, hints=hints, clock=database_now
        )
        host = ExecutorHost(parts, owner=self._owner)
        host.open()
        return host

    def _listen_for_the_end(self) -> None:
        """
        End runs on the signal itself, before the server's own handler.

        The server waits for open streams before it reports the shutdown: a stream would wait for its run, and the run
        for the shutdown, until the readers are cut off without a word.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            servers = signal.getsignal(number)
            if not callable(servers):
                continue

            def end(signum: int, frame: Any, servers: Callable[[int, Any], Any] = servers) -> None:
                loop.call_soon_threadsafe(self._begin_end)
                servers(signum, frame)

            signal.signal(number, end)

    def _begin_end(self) -> None:
        if self._ending is None and self._routes is not None:
            self._ending = asyncio.ensure_future(self._end())

    async def _end(self) -> None:
        """Let readers of other processes' runs go at once, the others when their runs have ended or were given back."""
        assert self._tails is not None
        self._tails.cut_followers()
        if self._live is not None:
            await self._live.close()
        if self._host is not None:
            await self._host.close(grace_seconds=GRACE_SECONDS)
        await self._tails.close()

    async def _shut_down(self) -> None:
        self._begin_end()
        if self._ending is not None:
            await self._ending
        if self._host is not None:
            # a turn that was being begun when the end came
            await self._host.close(grace_seconds=0)
        for part in (self._tails, self._logs, self._hints):
            if part is not None:
                await part.close()
        for threads in (self._database, self._looks):
            if threads is not None:
                threads.close()
