"""Everything that executes runs in one process, put together: the executor, what it claims, and what stops it.

Made by the web process in "web" mode and by run_executor, on the event loop that they run; both end it on SIGTERM.
"""

import asyncio
from dataclasses import dataclass

from django.conf import settings

from chat.llm.port import ChatModel
from chat.runs.claiming import RunClaimer
from chat.runs.executor import ExecutorLimits, RunExecutor
from chat.runs.hints import RUN_QUEUED, RUN_STOP, Hints
from chat.runs.logs import RunLogs
from chat.runs.stopping import POLL_SECONDS, POLL_SECONDS_WITH_HINTS, StopWatch
from smartflow.api.database_threads import DatabaseThreads
from smartflow.kernel.clock import Clock
from smartflow.observability.tracing import fresh_context

# How soon a queued run is found without a hint. In "web" mode only what was given back waits at all.
CLAIM_SECONDS = 1.0
CLAIM_SECONDS_WITHOUT_HINTS = 0.2
# At the end of the process, for a claim that is under way.
CLAIM_PATIENCE_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class HostParts:
    """What the process has anyway."""

    model: ChatModel
    database: DatabaseThreads
    looks: DatabaseThreads  # for what is looked for again and again
    logs: RunLogs
    hints: Hints
    clock: Clock  # the one that leases are compared by; read in the database's threads alone


class ExecutorHost:
    """One per process that executes runs. `owner` names the process in the rows of its runs."""

    def __init__(self, parts: HostParts, *, owner: str) -> None:
        self.owner = owner
        self._hints = parts.hints
        self.executor = RunExecutor(
            model=parts.model,
            database=parts.database,
            logs=parts.logs,
            clock=parts.clock,
            limits=limits_from_settings(),
            on_given_back=lambda run_id: parts.hints.publish(RUN_QUEUED, run_id),
        )
        has_hints = bool(settings.REDIS_URL)
        is_separate = settings.CHAT_EXECUTORS == "separate"
        self._claimer = RunClaimer(
            executor=self.executor,
            database=parts.looks,
            clock=parts.clock,
            owner=owner,
            lease_seconds=settings.CHAT_RUN_LEASE_SECONDS,
            poll_seconds=CLAIM_SECONDS_WITHOUT_HINTS if is_separate and not has_hints else CLAIM_SECONDS,
        )
        self._stops = StopWatch(
            executor=self.executor,
            database=parts.looks,
            owner=owner,
            poll_seconds=POLL_SECONDS_WITH_HINTS if has_hints else POLL_SECONDS,
        )
        self._tasks: list[asyncio.Task[None]] = []

    def open(self) -> None:
        """Begin to take runs that wait, and to look for stop requests."""
        self._hints.listen(RUN_QUEUED, lambda _run_id: self._claimer.wake())
        self._hints.listen(RUN_STOP, self._stop)
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self._claimer.work(), name="run-claimer", context=fresh_context()),
            loop.create_task(self._stops.work(), name="run-stops", context=fresh_context()),
        ]

    async def close(self, *, grace_seconds: float) -> None:
        """Take no more runs, then end as RunExecutor.shutdown does. Twice: the second call shortens the grace."""
        self._claimer.end()
        if self._tasks:
            # What is just being claimed is given back below.
            await asyncio.wait(self._tasks[:1], timeout=CLAIM_PATIENCE_SECONDS)
        await self.executor.shutdown(grace_seconds=grace_seconds)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _stop(self, run_id: str) -> None:
        self.executor.stop(run_id)


def limits_from_settings() -> ExecutorLimits:
    """Return what settings decide about runs."""
    return ExecutorLimits(
        lease_seconds=settings.CHAT_RUN_LEASE_SECONDS,
        max_live_runs=settings.CHAT_MAX_LIVE_RUNS,
        max_input_tokens=settings.CHAT_MAX_INPUT_TOKENS,
        reserved_tokens=settings.CHAT_RESERVED_TOKENS,
        context_budget_tokens=settings.CHAT_CONTEXT_BUDGET_TOKENS,
        context_reserve_tokens=settings.CHAT_CONTEXT_RESERVE_TOKENS,
    )
