"""The logs of this process: of the runs that it executes, and of those that run elsewhere and are followed here."""

from weakref import WeakValueDictionary

from chat.contracts import RunSnapshot, StartedRun
from chat.runs.hints import Hints
from chat.runs.log import RunLog
from smartflow.api.database_threads import DatabaseThreads


class RunLogs:
    """One per process. A log lives as long as its executor or one of its readers holds it."""

    def __init__(self, *, database: DatabaseThreads, hints: Hints) -> None:
        self._database = database
        self._hints = hints
        self._logs: WeakValueDictionary[str, RunLog] = WeakValueDictionary()

    def open(self, run: StartedRun, created: int) -> RunLog:
        """Return the log of a run that this process begins to execute; readers that follow it already go on with it."""
        log = self.find(run.run_id)
        if log is None:
            log = RunLog(run_id=run.run_id, attempt=run.attempt, model=run.model, created=created, user_id=run.user_id)
            self._logs[run.run_id] = log
        log.own(attempt=run.attempt, gate=None)
        return log

    async def settle(self, log: RunLog) -> None:
        """Return when everything said is shown."""

    def release(self, log: RunLog) -> None:
        """Execute it here no more, though it has not ended: its readers follow whoever executes it now."""
        log.disown()

    def follow(self, snapshot: RunSnapshot) -> RunLog:
        """Return a log of a run that is executed elsewhere, kept up to date while somebody holds it."""
        log = self.find(snapshot.run_id)
        if log is None:
            log = RunLog.of(snapshot)
            if log.end_of_run is None:
                self._logs[snapshot.run_id] = log
        return log

    def find(self, run_id: str) -> RunLog | None:
        """Return the log of a live run that is executed or followed here."""
        log = self._logs.get(run_id)
        return log if log is not None and log.end_of_run is None else None

    async def close(self) -> None:
        """Let every reader go, without an end mark where the run has none, and stop following."""
