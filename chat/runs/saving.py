"""Keeps what the live runs of this process say, and their leases: one saver for all of them.

Every second all runs that said something more are written in one transaction; the silent ones share one statement a
few times a lease. A run's first text is written at once: from then on nobody executes it anew. Readers wait for none
of it. A run that turns out to be somebody else's is halted, and nothing of it was written.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence

from django.db import InterfaceError, OperationalError

from chat.contracts import RunProgress, StartedRun
from chat.operations import renew_leases, save_progress
from chat.runs.live_run import LiveRun, started_of
from smartflow.api.database_threads import DatabaseThreads
from smartflow.kernel.clock import Clock
from smartflow.kernel.redact import describe_error
from smartflow.observability.tracing import fresh_context

logger = logging.getLogger(__name__)

# What is said reaches the database this often, so a killed process loses at most this much of it.
SAVE_SECONDS = 1.0
# A run that has nothing to save renews its lease this many times while it lasts.
RENEWALS_A_LEASE = 4


class RunSaver:
    """One per executor; works while there are runs."""

    def __init__(
        self,
        *,
        database: DatabaseThreads,
        clock: Clock,
        lease_seconds: float,
        on_lost: Callable[[LiveRun], None],
    ) -> None:
        self._database = database
        self._clock = clock
        self._lease_seconds = lease_seconds
        self._on_lost = on_lost
        self._runs: dict[str, LiveRun] = {}
        self._urgent: dict[str, LiveRun] = {}
        self._hurried = asyncio.Event()
        self._saving = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self.is_database_away = False

    def add(self, live: LiveRun) -> None:
        """Keep a run's progress from now on."""
        self._runs[live.run.run_id] = live
        if self._task is None or self._task.done():
            loop = asyncio.get_running_loop()
            self._task = loop.create_task(self._work(), name="run-saver", context=fresh_context())

    def remove(self, live: LiveRun) -> None:
        """Keep a run no more: its end is in the database, or it is somebody else's."""
        self._runs.pop(live.run.run_id, None)
        self._urgent.pop(live.run.run_id, None)
        if not self._runs:
            self._hurried.set()

    def hurry(self, live: LiveRun) -> None:
        """Save a run at once; returns before that is done."""
        self._urgent[live.run.run_id] = live
        self._hurried.set()

    async def confirm(self, live: LiveRun) -> None:
        """Return when what is new is saved and the lease is kept, the run is halted, or the database is away."""
        await self._save([live])

    async def _work(self) -> None:
        due = time.monotonic() + SAVE_SECONDS
        while self._runs:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._hurried.wait(), timeout=max(0.0, due - time.monotonic()))
            self._hurried.clear()
            urgent, self._urgent = list(self._urgent.values()), {}
            if time.monotonic() >= due:
                due = time.monotonic() + SAVE_SECONDS
                urgent = list(self._runs.values())
                for live in urgent:
                    live.hold.renew_if_due()
            if urgent:
                await self._save(urgent)

    async def _save(self, lives: Sequence[LiveRun]) -> None:
        """Write what is new of these runs, and renew the leases that are due."""
        async with self._saving:
            started = time.monotonic()
            marks = {live: (live.log.units, live.asked_tokens) for live in lives if self._is_ours(live)}
            changed = [live for live, mark in marks.items() if mark != live.saved]
            silent = [live for live, mark in marks.items() if mark == live.saved and self._is_due(live, started)]
            if not changed and not silent:
                return
            saves = [(live.run, live.progress()) for live in changed]
            try:
                lost = await self._database.run_ahead(self._write, saves, started_of(silent))
            except (OperationalError, InterfaceError) as error:
                self.is_database_away = True
                logger.info("Progress could not be saved; next try in a second", extra={"error": describe_error(error)})
                return
            except Exception:
                # One run that cannot be written must not cost the others their leases.
                logger.exception("Progress could not be saved; the leases are renewed without it")
                renewed = await self._renew(list(marks))
                if renewed is None:
                    self.is_database_away = True
                    return
                lost, silent, changed = renewed, list(marks), []
            self.is_database_away = False
            for live in (*changed, *silent):
                if live.run.run_id in lost:
                    self._on_lost(live)
                    continue
                live.lease_ends = started + self._lease_seconds
                if live in changed:
                    live.saved = marks[live]

    async def _renew(self, lives: Sequence[LiveRun]) -> frozenset[str] | None:
        """Return whose runs are lost; None when no lease was renewed."""
        try:
            return await self._database.run_ahead(self._write, [], started_of(lives))
        except Exception as error:
            logger.info("Leases could not be renewed; next try in a second", extra={"error": describe_error(error)})
            return None

    def _write(self, saves: list[tuple[StartedRun, RunProgress]], silent: list[StartedRun]) -> frozenset[str]:
        now = self._clock()
        lost = save_progress(saves=saves, lease_seconds=self._lease_seconds, now=now) if saves else frozenset()
        return lost | renew_leases(runs=silent, lease_seconds=self._lease_seconds, now=now)

    def _is_ours(self, live: LiveRun) -> bool:
        return self._runs.get(live.run.run_id) is live

    def _is_due(self, live: LiveRun, now: float) -> bool:
        return live.lease_ends - now < self._lease_seconds * (1 - 1 / RENEWALS_A_LEASE)
