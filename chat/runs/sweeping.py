"""Ends the runs whose executor died and that nobody may execute anew; what was said is kept. Called by a job."""

from collections.abc import Callable

from chat.operations import RecoveredText, WaitingRun, end_orphaned_run, list_orphaned_runs
from chat.queries import list_followed_runs
from chat.runs.redis_log import recover_output
from chat.runs.saving import SAVE_SECONDS
from smartflow.kernel.clock import Clock

# After an outage of the database the living owners renew their leases within this.
PATIENCE_SECONDS = 2.5 * SAVE_SECONDS


def end_orphans(*, clock: Clock, wait: Callable[[float], object], limit: int = 200) -> int:
    """
    End orphaned runs, at most `limit`, and return how many.

    A run counts as an orphan when it looks like one twice, some seconds apart: when the database was away, every lease
    is over, and its owner, who is alive, needs a moment to renew it.
    """
    first = {(run.run_id, run.epoch) for run in list_orphaned_runs(now=clock(), limit=limit)}
    if not first:
        return 0
    wait(PATIENCE_SECONDS)
    orphans = [run for run in list_orphaned_runs(now=clock(), limit=limit) if (run.run_id, run.epoch) in first]
    return sum(end_orphaned_run(run_id=run.run_id, recovered=recover(run), now=clock()) for run in orphans)


def recover(waiting: WaitingRun) -> RecoveredText | None:
    """Return what the run's dead owner had said, when more of it is known than the row has."""
    for snapshot in list_followed_runs(run_ids=[waiting.run_id]):
        return recover_output(snapshot.run_id, snapshot.attempt, text=snapshot.text, events=snapshot.events)
    return None
