"""Finds runs that wait for an executor and lets this process take them, as many as it has room for.

Woken by a hint when a run is queued or given back, and looks by itself every second. Of executors that see the same
run, the database lets one have it. A run whose owner seems dead is looked at twice, a save apart: after an outage of
the database the living owners renew their leases first.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from django.db import InterfaceError, OperationalError

from chat.contracts import StartedRun
from chat.operations import WaitingRun, claim_run, end_orphaned_run, list_claimable_runs
from chat.runs.log import RunLog
from chat.runs.recovery import Recovery
from chat.runs.saving import SAVE_SECONDS
from smartflow.api.database_threads import DatabaseThreads
from smartflow.kernel.clock import Clock
from smartflow.kernel.redact import describe_error

logger = logging.getLogger(__name__)

# Larger: more runs are taken at once, by one executor, while others might have shared them.
MOST_AT_ONCE = 20
# Suspects stand in front of the runs that wait: they are older.
MOST_SUSPECTS = 200
# A living owner renews within this once the database answers it again.
SUSPICION_SECONDS = 1.5 * SAVE_SECONDS


class Executor(Protocol):
    """Whoever executes what is claimed."""

    @property
    def room(self) -> int:
        """How many more runs there may be."""

    def start(self, run: StartedRun) -> RunLog:
        """Execute a run."""


@dataclass
class _Visit:
    """What one visit to the database brought."""

    taken: list[StartedRun] = field(default_factory=list)
    suspects: dict[tuple[str, int], float] = field(default_factory=dict)


class RunClaimer:
    """One per process; works from work() to end()."""

    def __init__(
        self,
        *,
        executor: Executor,
        database: DatabaseThreads,
        clock: Clock,
        owner: str,
        lease_seconds: float,
        poll_seconds: float,
    ) -> None:
        self._executor = executor
        self._database = database
        self._clock = clock
        self._owner = owner
        self._lease_seconds = lease_seconds
        self._poll_seconds = poll_seconds
        self._woken = asyncio.Event()
        self._suspects: dict[tuple[str, int], float] = {}
        self._is_ending = False

    def wake(self) -> None:
        """Look at once."""
        self._woken.set()

    def end(self) -> None:
        """Look no more; work() returns once the look that is under way has ended."""
        self._is_ending = True
        self._woken.set()

    async def work(self) -> None:
        """Claim and start runs until end()."""
        while True:
            self._woken.clear()
            if self._executor.room:
                await self._look()
            if self._is_ending:
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), timeout=self._poll_seconds)

    async def _look(self) -> None:
        limit = min(self._executor.room, MOST_AT_ONCE)
        try:
            visit = await self._database.run(self._visit, limit, self._suspects)
        except (OperationalError, InterfaceError) as error:
            logger.info("Waiting runs could not be looked for", extra={"error": describe_error(error)})
            return
        except Exception:
            # The loop must outlive whatever one look met.
            logger.exception("Waiting runs could not be looked for")
            return
        self._suspects = visit.suspects
        for run in visit.taken:
            self._executor.start(run)
        if len(visit.taken) == limit:
            self._woken.set()

    def _visit(self, limit: int, earlier: Mapping[tuple[str, int], float]) -> _Visit:
        moment, visit = time.monotonic(), _Visit()
        waiting: Sequence[WaitingRun] = list_claimable_runs(now=self._clock(), limit=limit + MOST_SUSPECTS)
        with Recovery() as recovery:
            for one in waiting:
                if len(visit.taken) == limit:
                    break
                fence = (one.run_id, one.epoch)
                since = earlier.get(fence, moment)
                if one.owner and moment - since < SUSPICION_SECONDS:
                    visit.suspects[fence] = since
                    continue
                run = self._claim(one, recovery)
                if run is not None:
                    visit.taken.append(run)
        return visit

    def _claim(self, waiting: WaitingRun, recovery: Recovery) -> StartedRun | None:
        # What a dead owner's readers have seen is not said anew.
        recovered = recovery.of(waiting) if waiting.owner else None
        now = self._clock()  # the lease counts from here, however long Redis took
        if recovered is not None and recovered.text:
            end_orphaned_run(run_id=waiting.run_id, recovered=recovered, now=now)
            return None
        return claim_run(run_id=waiting.run_id, owner=self._owner, lease_seconds=self._lease_seconds, now=now)
