"""Ends the runs whose executor died and that nobody may execute anew; what was said is kept. Called by a job."""

import random
from collections.abc import Callable

from chat.operations import end_orphaned_run, list_orphaned_runs
from chat.runs.recovery import Recovery
from chat.runs.saving import SAVE_SECONDS
from smartflow.kernel.clock import Clock

# After an outage of the database the living owners renew their leases within this.
PATIENCE_SECONDS = 2.5 * SAVE_SECONDS
# More than a process may own by default; what is left over has its turn with the next pass.
MOST_AT_ONCE = 1000


def end_orphans(*, clock: Clock, wait: Callable[[float], object], limit: int = MOST_AT_ONCE) -> int:
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
    # The next pass begins while this one is at work: in another order it takes over a part of it.
    random.shuffle(orphans)
    with Recovery() as recovery:
        return sum(end_orphaned_run(run_id=run.run_id, recovered=recovery.of(run), now=clock()) for run in orphans)
