"""How deep and how late the outbox is: one statement of bounded counts, each read from an index."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from django.db.models import BigIntegerField, Case, DateTimeField, Min, QuerySet, Subquery, Value, When

from outbox.models import KeyHold, OutboxMessage, Status
from outbox.walk import open_dead_letters, rows_of_status
from smartflow.kernel.counts import BoundedCount

# Larger: more exact on a bad day, and slower: 10,000 index entries are read in a few milliseconds.
COUNT_CAP = 10_000
# What no index tells is looked for in so many rows: among millions each of them lies on a page of its own.
ROWS_CAP = 1000


@dataclass(frozen=True, kw_only=True)
class OutboxDepth:
    """
    One look at the outbox. Ages in seconds, None where there is no such row. `dead` leaves discarded rows out.

    A pending row is ready (`in_flight` of these are with a relay), waiting (for its next try) or held (its key is
    blocked).
    """

    pending: BoundedCount
    ready: BoundedCount
    in_flight: BoundedCount
    waiting: BoundedCount
    held: BoundedCount
    blocked_keys: BoundedCount
    published: BoundedCount
    dead: BoundedCount
    oldest_pending_seconds: float | None
    oldest_ready_seconds: float | None
    oldest_published_seconds: float | None


class CountOf(Subquery):
    """How many rows a bounded query finds, as one value of a larger statement."""

    template = "(SELECT COUNT(%(counted)s) FROM (%(subquery)s) AS counted)"
    output_field = BigIntegerField()

    def __init__(self, rows: QuerySet[Any, Any], *, counted: str = "*") -> None:
        super().__init__(rows, counted=counted)


class _OldestOf(Subquery):
    """Since when the first of the rows is ready whose ids a query finds, in a column named `first`."""

    template = (
        "(SELECT MIN(COALESCE(each_first.ready_at, each_first.created_at)) FROM (%(subquery)s) AS firsts"
        " JOIN agent_outbox_messages AS each_first ON each_first.id = firsts.first)"
    )
    output_field = DateTimeField()


def depth_and_lag(*, now: datetime, cap: int = COUNT_CAP) -> OutboxDepth:
    """
    Return how many rows stand in each unfinished state, each counted up to `cap`, and the age of the oldest.

    The oldest ready row's age is how long it has been ready: an operator may have sent round an event of last week.

    In flight is looked for in at most ROWS_CAP rows.

    Source: one statement; idx_outbox_status_id, idx_outbox_status_next and idx_outbox_ready; `cap + 1` entries a state.
    """
    cap_rows = min(cap, ROWS_CAP)
    newest = OutboxMessage.objects.order_by("-id").values(**_counts(cap, now), **_oldest())
    found = cast(dict[str, Any], newest.first() or {})
    unscheduled, waiting, ready = (found.get(name, 0) for name in ("unscheduled", "waiting", "ready"))
    keys = found.get("blocked_keys", 0)
    # Nothing indexes held rows, but each one's key has its KeyHold.
    held = max(0, unscheduled - ready) if keys else 0
    return OutboxDepth(
        pending=BoundedCount.of(unscheduled + waiting, cap=cap),
        ready=BoundedCount.of(ready, cap=cap),
        in_flight=BoundedCount(value=min(cap_rows, found.get("in_flight", 0)), is_capped=ready > cap_rows),
        waiting=BoundedCount.of(waiting, cap=cap),
        held=BoundedCount(value=min(cap, held), is_capped=bool(keys) and unscheduled > cap),
        blocked_keys=BoundedCount.of(keys, cap=cap),
        published=BoundedCount.of(found.get("published", 0), cap=cap),
        dead=BoundedCount.of(found.get("dead", 0), cap=cap),
        oldest_pending_seconds=_age(found.get("pending_since"), now),
        oldest_ready_seconds=_age(found.get("ready_since"), now),
        oldest_published_seconds=_age(found.get("published_since"), now),
    )


def _counts(cap: int, now: datetime) -> dict[str, Any]:
    rows, limit, row_limit = OutboxMessage.objects.order_by(), cap + 1, min(cap, ROWS_CAP) + 1
    pending, ready = rows.filter(status=Status.PENDING), rows.filter(ready_shard__isnull=False)
    # a lease that is over is a row that nobody has
    leased = ready.annotate(leased=Case(When(lease_until__gt=now, then=Value(1))))
    return {
        "unscheduled": CountOf(pending.filter(next_retry_at__isnull=True).values("id")[:limit]),
        "waiting": CountOf(pending.filter(next_retry_at__isnull=False).values("id")[:limit]),
        "ready": CountOf(ready.values("id")[:limit]),
        "in_flight": CountOf(leased.values("leased")[:row_limit], counted="leased"),
        "published": CountOf(rows.filter(status=Status.PUBLISHED).values("id")[:limit]),
        "dead": CountOf(open_dead_letters().order_by().values("id")[:limit]),
        "blocked_keys": CountOf(KeyHold.objects.order_by().values("pk")[:limit]),
    }


def _oldest() -> dict[str, Any]:
    # One entry a shard: the database skips from shard to shard in the index instead of reading all that is ready.
    first_of_shard = OutboxMessage.objects.filter(ready_shard__isnull=False).order_by().values("ready_shard")
    return {
        "pending_since": Subquery(rows_of_status(status=Status.PENDING).values("created_at")[:1]),
        "ready_since": _OldestOf(first_of_shard.annotate(first=Min("id")).values("first")),
        "published_since": Subquery(rows_of_status(status=Status.PUBLISHED).values("published_at")[:1]),
    }


def _age(moment: datetime | None, now: datetime) -> float | None:
    return max(0.0, (now - moment).total_seconds()) if moment else None
