"""Ends runs of this process that somebody asked to stop, from any device and through any process.

A hint brings the request within milliseconds; the flag in the row is looked for besides, often where no hint comes.
"""

import asyncio
import logging
from typing import Protocol

from django.db import InterfaceError, OperationalError

from chat.operations import list_stop_requests
from smartflow.api.database_threads import DatabaseThreads
from smartflow.kernel.redact import describe_error

logger = logging.getLogger(__name__)

# Smaller: a stop takes less time where there is no Redis, and each process with live runs asks more often.
POLL_SECONDS = 0.15
POLL_SECONDS_WITH_HINTS = 1.0


class Executor(Protocol):
    """Whoever executes the runs."""

    @property
    def live_count(self) -> int:
        """How many runs there are."""

    def stop(self, run_id: str) -> bool:
        """End a run."""


class StopWatch:
    """One per process; works from work() until it is cancelled."""

    def __init__(
        self, *, executor: Executor, database: DatabaseThreads, owner: str, poll_seconds: float = POLL_SECONDS
    ) -> None:
        self._executor = executor
        self._database = database
        self._owner = owner
        self._poll_seconds = poll_seconds

    async def work(self) -> None:
        """Look for stop requests while there are runs, for ever."""
        while True:
            await asyncio.sleep(self._poll_seconds)
            if self._executor.live_count:
                await self._look()

    async def _look(self) -> None:
        try:
            asked = await self._database.run(list_stop_requests, owner=self._owner)
        except (OperationalError, InterfaceError) as error:
            logger.info("Stop requests could not be looked for", extra={"error": describe_error(error)})
            return
        except Exception:
            # The loop must outlive whatever one look met.
            logger.exception("Stop requests could not be looked for")
            return
        for run_id in asked:
            self._executor.stop(run_id)
