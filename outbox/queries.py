"""Reads for operators: how deep and how late the outbox is, and the rows of one key.

Every read is bounded and goes through an index, so that looking costs the same on the worst day. Called by the admin
and the dashboard; the flow itself never reads through here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from heapq import nlargest, nsmallest

from django.db.models import Count, Exists, OuterRef, QuerySet

from outbox.models import OutboxMessage, Status
from smartflow.kernel.counts import BoundedCount

# Larger: more exact on a bad day, and slower: 10,000 index entries are read in a few milliseconds.
COUNT_CAP = 10_000


@dataclass(frozen=True, kw_only=True)
class OutboxDepth:
    """One look at the outbox. Ages in seconds, None where there is no such row. `dead` leaves discarded rows out."""

    pending: BoundedCount
    retrying: BoundedCount
    published: BoundedCount
    dead: BoundedCount
    oldest_pending_seconds: float | None
    oldest_published_seconds: float | None


def depth_and_lag(*, now: datetime, cap: int = COUNT_CAP) -> OutboxDepth:
    """
    Return how many rows stand in each unfinished state, each counted up to `cap`, and the age of the oldest.

    Source: the index idx_outbox_status_id (for retrying, idx_outbox_status_next); at most `cap + 1` entries a state.
    """
    pending = OutboxMessage.objects.filter(status=Status.PENDING)
    published = OutboxMessage.objects.filter(status=Status.PUBLISHED)
    written_at = pending.order_by("id").values_list("created_at", flat=True).first()
    published_at = published.order_by("id").values_list("published_at", flat=True).first()
    return OutboxDepth(
        pending=_count(pending, cap=cap),
        retrying=_count(pending.filter(next_retry_at__gt=now), cap=cap),
        published=_count(published, cap=cap),
        dead=_count_open_dead_letters(cap=cap),
        oldest_pending_seconds=_age(written_at, now),
        oldest_published_seconds=_age(published_at, now),
    )


def list_key_ids(
    *,
    key: str,
    statuses: Sequence[str],
    limit: int,
    older_than: int | None = None,
    newer_than: int | None = None,
) -> list[int]:
    """
    Return the ids of a key's rows next to a place: the nearest above `newer_than`, else the nearest below `older_than`.

    One read a status, because only (message_key, status, id) is indexed: a key with a million rows costs no more.
    Shape: at most `limit` ids; ascending with `newer_than`, else descending.
    """
    found: list[int] = []
    for status in statuses:
        ids = OutboxMessage.objects.filter(message_key=key, status=status).values_list("id", flat=True)
        if newer_than is not None:
            found.extend(ids.filter(id__gt=newer_than).order_by("id")[:limit])
        elif older_than is not None:
            found.extend(ids.filter(id__lt=older_than).order_by("-id")[:limit])
        else:
            found.extend(ids.order_by("-id")[:limit])
    return nsmallest(limit, found) if newer_than is not None else nlargest(limit, found)


def list_neighbours(*, key: str, message_id: int, limit: int) -> list[OutboxMessage]:
    """
    Return the row and up to `limit` rows of its key on either side, in the order of id, without their payloads.

    Shape: list of OutboxMessage with payload and last_error deferred.
    """
    ids = [
        *list_key_ids(key=key, statuses=Status.values, limit=limit, older_than=message_id),
        message_id,
        *list_key_ids(key=key, statuses=Status.values, limit=limit, newer_than=message_id),
    ]
    return list(OutboxMessage.objects.filter(id__in=ids).defer("payload", "last_error").order_by("id"))


def list_overtaken_ids(*, ids: Sequence[int]) -> list[int]:
    """
    Return those of the given rows behind which a later event of the same key was already handled.

    Requeued, such an event arrives after its follower. One query; one index read a row.
    """
    handled_later = OutboxMessage.objects.filter(
        message_key=OuterRef("message_key"), status=Status.CONSUMED, id__gt=OuterRef("id")
    )
    rows = OutboxMessage.objects.filter(Exists(handled_later), id__in=ids).order_by("id")
    return list(rows.values_list("id", flat=True))


def _count(rows: QuerySet[OutboxMessage], *, cap: int) -> BoundedCount:
    return BoundedCount.of(rows.order_by().values("id")[: cap + 1].count(), cap=cap)


def _count_open_dead_letters(*, cap: int) -> BoundedCount:
    # Limited before the discarded ones are taken off: otherwise a million of them would be read to find one open row.
    newest = OutboxMessage.objects.filter(status=Status.DEAD).order_by("-id")[: cap + 1]
    seen = newest.aggregate(rows=Count("id"), discarded=Count("discarded_at"))
    return BoundedCount(value=min(cap, seen["rows"] - seen["discarded"]), is_capped=seen["rows"] > cap)


def _age(moment: datetime | None, now: datetime) -> float | None:
    return max(0.0, (now - moment).total_seconds()) if moment else None
