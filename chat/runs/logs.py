"""The logs of this process: of the runs that it executes, and of those that run elsewhere and are followed here."""

from weakref import WeakValueDictionary

from chat.contracts import RunSnapshot, StartedRun
from chat.runs.followers import ENDED, Followers, channel_of
from chat.runs.hints import Hints
from chat.runs.log import RunLog
from chat.runs.redis_writer import RedisWriter
from smartflow.api.database_threads import DatabaseThreads


class RunLogs:
    """One per process. A log lives as long as its executor or one of its readers holds it."""

    def __init__(self, *, database: DatabaseThreads, hints: Hints) -> None:
        self._hints = hints
        self._logs: WeakValueDictionary[str, RunLog] = WeakValueDictionary()
        self._followers = Followers(database=database, hints=hints)
        self._writer = RedisWriter(hints.client) if hints.client is not None else None

    def open(self, run: StartedRun, created: int) -> RunLog:
        """
        Return the log of a run that this process begins to execute; readers that follow it already go on with it.

        With Redis, readers see what is said as soon as Redis has it, or cannot take it.
        """
        log = self.find(run.run_id)
        if log is None:
            log = RunLog(run_id=run.run_id, attempt=run.attempt, model=run.model, created=created, user_id=run.user_id)
            self._logs[run.run_id] = log
        else:
            self._leave(log)
        log.own(attempt=run.attempt, gate=self._gate if self._writer is not None else None)
        return log

    def release(self, log: RunLog) -> None:
        """Execute it here no more, though it has not ended: its readers follow whoever executes it now."""
        self._leave(log)
        log.disown()
        self._followers.add(log)

    def follow(self, snapshot: RunSnapshot) -> RunLog:
        """Return a log of a run that is executed elsewhere, kept up to date while somebody holds it."""
        log = self.find(snapshot.run_id)
        if log is None:
            log = RunLog.of(snapshot)
            if log.end_of_run is None:
                self._logs[snapshot.run_id] = log
                self._followers.add(log)
        return log

    def find(self, run_id: str) -> RunLog | None:
        """Return the log of a live run that is executed or followed here."""
        log = self._logs.get(run_id)
        return log if log is not None and log.end_of_run is None else None

    async def close(self) -> None:
        """Stop following, and stop writing to Redis."""
        await self._followers.close()
        if self._writer is not None:
            await self._writer.close()

    def _leave(self, log: RunLog) -> None:
        self._followers.remove(log.run_id)
        if self._writer is not None:
            self._writer.drop(log)

    def _gate(self, log: RunLog) -> None:
        assert self._writer is not None
        self._writer.offer(log)
        if log.end_of_run is not None:
            self._hints.publish(channel_of(log.run_id), ENDED)
