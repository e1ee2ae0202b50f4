"""Reads of runs for operators, and for those who follow runs of other processes; bounded, each through an index."""

from collections.abc import Sequence
from dataclasses import dataclass

from django.db.models.functions import Length

from chat.models import ChatRun
from smartflow.kernel.counts import BoundedCount


@dataclass(frozen=True, slots=True)
class RunMark:
    """How far a run is, without what it said."""

    run_id: str
    attempt: int
    is_live: bool
    units: int


def list_run_marks(*, run_ids: Sequence[str]) -> list[RunMark]:
    """Return how far these runs are, by primary key; a run that is gone is missing."""
    rows = ChatRun.objects.filter(id__in=run_ids).order_by("id")
    return [
        RunMark(run_id, attempt, bool(is_live), characters + len(events))
        for run_id, attempt, is_live, characters, events in rows.values_list(
            "id", "attempt", "is_live", Length("output_text"), "output_events"
        )
    ]


def is_run_of(*, user_id: int, run_id: str) -> bool:
    """Tell whether a run is the user's and its conversation was not deleted."""
    return ChatRun.objects.filter(id=run_id, user_id=user_id, chat__deleted_at__isnull=True).exists()


def count_runs_in_flight(*, cap: int = 10_000) -> BoundedCount:
    """Return how many runs are queued or running, counted up to `cap`, through idx_run_live_lease."""
    live = ChatRun.objects.filter(is_live=True).order_by().values("is_live")
    return BoundedCount.of(live[: cap + 1].count(), cap=cap)
