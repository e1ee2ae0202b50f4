"""`manage.py run_executor`: executes runs that wait, beside any number of others, until SIGTERM or SIGINT.

The first signal gives back what has said nothing and lets the rest speak on for CHAT_DRAIN_SECONDS; the second ends at
once. What was said is kept either way.
"""

import asyncio
import os
import signal
import socket
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from chat.llm.factory import build_chat_model
from chat.runs.executor_host import ExecutorHost, HostParts
from chat.runs.hints import Hints
from chat.runs.logs import RunLogs
from outbox.database_clock import database_now
from smartflow.api.database_threads import DatabaseThreads, looking_threads
from smartflow.kernel.ids import new_uuid
from smartflow.observability.metrics import start_exporter


class Command(BaseCommand):
    """Execute runs."""

    help = "Execute the assistant's runs (CHAT_EXECUTORS=separate). Start any number; SIGTERM drains and hands over."

    def handle(self, *args: Any, **options: Any) -> None:
        """Work until asked to end."""
        start_exporter()
        asyncio.run(self._work())

    async def _work(self) -> None:
        signals: asyncio.Queue[int] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, signals.put_nowait, number)
        database, looks = DatabaseThreads(), looking_threads()
        hints = Hints(redis_url=settings.REDIS_URL, prefix=settings.OUTBOX_TOPIC_PREFIX)
        logs = RunLogs(database=looks, hints=hints)
        host = ExecutorHost(
            HostParts(
                model=build_chat_model(), database=database, looks=looks, logs=logs, hints=hints, clock=database_now
            ),
            # a process id comes back after a restart, its lease with it; the random part does not
            owner=f"{socket.gethostname()[:40]}:{os.getpid()}:{new_uuid()[:8]}",
        )
        host.open()
        self.stdout.write("Executing runs. Ctrl-C stops.")
        await signals.get()
        self.stdout.write(f"Ending: no new runs; {host.executor.live_count} under way.")
        await _drain(host, signals)
        await logs.close()
        await hints.close()
        for threads in (database, looks):
            threads.close()


async def _drain(host: ExecutorHost, signals: "asyncio.Queue[int]") -> None:
    """Let runs end by themselves for a while, unless there is a second signal."""
    draining = asyncio.ensure_future(host.close(grace_seconds=settings.CHAT_DRAIN_SECONDS))
    again = asyncio.ensure_future(signals.get())
    await asyncio.wait({draining, again}, return_when=asyncio.FIRST_COMPLETED)
    again.cancel()
    if not draining.done():
        await host.close(grace_seconds=0)
    await draining
