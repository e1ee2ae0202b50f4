"""Keeps the logs of runs that are executed elsewhere up to date, for the readers of this process.

Redis brings what is said within milliseconds. What it misses, and everything without it, is read from the database:
one visit for all runs that are followed here, however many read them.
"""

import asyncio
import contextlib
import logging
from time import monotonic
from weakref import WeakValueDictionary

from django.db import InterfaceError, OperationalError

from chat.contracts import RunSnapshot, RunState
from chat.operations import INTERRUPTED
from chat.queries import list_followed_runs
from chat.run_queries import RunMark, list_run_marks
from chat.runs.hints import AWAY, Hints
from chat.runs.log import RunLog
from chat.runs.redis_log import catch_up, read_message
from chat.runs.wire import RunEnd
from smartflow.api.database_threads import DatabaseThreads
from smartflow.kernel.redact import describe_error

logger = logging.getLogger(__name__)

# How often the database is read for runs that Redis does not bring, and for those that it does. Smaller: more queries.
POLL_SECONDS = 0.25
GLANCE_SECONDS = 1.0
# A reading may take this part of the time at most, however many runs are followed.
_POLL_SHARE = 0.2
_RUNS_AT_ONCE = 500
ENDED = "ended"


class Followers:
    """Feeds logs until nobody holds them."""

    def __init__(self, *, database: DatabaseThreads, hints: Hints) -> None:
        self._database = database
        self._hints = hints
        self._logs: WeakValueDictionary[str, RunLog] = WeakValueDictionary()
        # Runs of which Redis cannot bring all; and runs whose stream is to be read.
        self._lacking: set[str] = set()
        self._behind: set[str] = set()
        self._heard: set[str] = set()
        self._wanted = asyncio.Event()
        self._catching_up: asyncio.Task[None] | None = None
        self._polling: asyncio.Task[None] | None = None

    def add(self, log: RunLog) -> None:
        """Keep a log up to date from now on."""
        run_id = log.run_id
        self._logs[run_id] = log
        if self._hints.client is not None:
            self._heard.add(run_id)
            self._hints.listen(
                channel_of(run_id),
                lambda text: self._hear(run_id, text),
                on_subscribed=lambda: self._look_into_stream(run_id),
            )
        if self._polling is None:
            self._polling = asyncio.ensure_future(self._poll())

    def remove(self, run_id: str) -> None:
        """Leave a log to somebody else."""
        self._logs.pop(run_id, None)
        self._forget_unheard()

    async def close(self) -> None:
        """Stop."""
        tasks = [task for task in (self._polling, self._catching_up) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _hear(self, run_id: str, text: str) -> None:
        log = self._logs.get(run_id)
        if log is None:
            return
        if text == ENDED:
            self._lacking.add(run_id)
            self._wanted.set()
            return
        attempt, end, piece = read_message(text)
        if not log.take(piece, attempt=attempt, end=end):
            self._look_into_stream(run_id)

    def _look_into_stream(self, run_id: str) -> None:
        self._behind.add(run_id)
        if self._catching_up is None:
            self._catching_up = asyncio.ensure_future(self._catch_up())

    async def _catch_up(self) -> None:
        """Read the streams of runs of which something was missed, one after the other."""
        while self._behind and self._hints.client is not None:
            run_id = self._behind.pop()
            log = self._logs.get(run_id)
            if log is None:
                continue
            try:
                is_whole = await catch_up(log, self._hints.client)
            except AWAY:
                is_whole = False
            is_followed = run_id in self._logs  # the run may have ended meanwhile
            (self._lacking.add if is_followed and not is_whole else self._lacking.discard)(run_id)
        self._catching_up = None

    async def _poll(self) -> None:
        """Read the database for as long as somebody follows something."""
        glanced_at = monotonic()
        seconds = POLL_SECONDS
        while self._logs:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wanted.wait(), seconds)
            self._wanted.clear()
            began = monotonic()
            is_glance = not self._hints.is_connected or began - glanced_at >= GLANCE_SECONDS
            if is_glance:
                glanced_at = began
            self._forget_unheard()
            try:
                await self._read(sorted(self._logs.keys() if is_glance else self._lacking))
            except (OperationalError, InterfaceError) as error:
                logger.info("Followed runs could not be read", extra={"error": describe_error(error)})
            except Exception:
                # without this task every reader here would wait for ever
                logger.exception("Followed runs could not be read")
            seconds = max(POLL_SECONDS, (monotonic() - began) / _POLL_SHARE)
        self._polling = None
        self._forget_unheard()

    async def _read(self, run_ids: list[str]) -> None:
        for start in range(0, len(run_ids), _RUNS_AT_ONCE):
            some = run_ids[start : start + _RUNS_AT_ONCE]
            marks = {mark.run_id: mark for mark in await self._database.run(list_run_marks, run_ids=some)}
            changed = [run_id for run_id in some if self._is_behind(run_id, marks.get(run_id))]
            if changed:
                for snapshot in await self._database.run(list_followed_runs, run_ids=changed):
                    self._take(snapshot)
            for run_id in self._lacking.intersection(some):
                self._look_into_stream(run_id)

    def _is_behind(self, run_id: str, mark: RunMark | None) -> bool:
        """Tell whether the database knows more than the log; a run that it does not know any more has ended."""
        log = self._logs.get(run_id)
        if log is None:
            return False
        if mark is None:
            log.finish(RunEnd(state=RunState.FAILED, error_code=INTERRUPTED))
            self.remove(run_id)
            return False
        return not mark.is_live or mark.attempt > log.attempt or mark.units > log.units

    def _take(self, snapshot: RunSnapshot) -> None:
        log = self._logs.get(snapshot.run_id)
        if log is None:
            return
        log.catch_up(snapshot)
        if log.end_of_run is not None:
            self.remove(snapshot.run_id)

    def _forget_unheard(self) -> None:
        """Unsubscribe from runs that nobody follows any more."""
        unheard = self._heard.difference(self._logs.keys())
        self._heard -= unheard
        self._lacking -= unheard
        self._hints.forget(channel_of(run_id) for run_id in unheard)


def channel_of(run_id: str) -> str:
    """Return the channel on which a run's entries are told."""
    return f"run:{run_id}"
