"""Reads of runs for operators; bounded, each through an index."""

from chat.models import ChatRun
from smartflow.kernel.counts import BoundedCount


def count_runs_in_flight(*, cap: int = 10_000) -> BoundedCount:
    """Return how many runs are queued or running, counted up to `cap`, through idx_run_live_lease."""
    live = ChatRun.objects.filter(is_live=True).order_by().values("is_live")
    return BoundedCount.of(live[: cap + 1].count(), cap=cap)
