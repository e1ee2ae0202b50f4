"""Finds published rows whose message nobody will ever be given again, and sends them round again. Called by a job.

The broker is asked, not the clock: a row whose message still lies ahead of the consumers is late, not lost, however
old it is.
"""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import F

from outbox.claim import unlocked
from outbox.database_errors import repeat_on_conflict
from outbox.models import OutboxMessage, Status
from outbox.transports import PublishedRow, Transport

# Younger rows are on their way as a rule: consumers commit what they have done every half second.
SETTLED_SECONDS = 5.0
# Larger: a long queue is looked through sooner; smaller: fewer rows are read while nothing is wrong.
PAGE = 5000


class Rescan:
    """Walks through the published rows, a page at a time, and begins anew at the end."""

    def __init__(self, *, transport: Transport, unknown_seconds: float, page: int = PAGE) -> None:
        self._transport = transport
        self._unknown = timedelta(seconds=unknown_seconds)
        self._page = page
        self._after_id = 0

    def run_page(self, *, now: datetime) -> int:
        """
        Send the lost rows of one page round again and return how many.

        Transaction: its own; a row that a consumer has in hand at this moment is not lost and is passed over.
        Twice:       safe: a duplicate does no harm, because dispatch handles once.
        Raises:      TransportUnavailable: the broker says nothing, so nothing is known to be lost.
        """
        published = OutboxMessage.objects.filter(status=Status.PUBLISHED, id__gt=self._after_id).order_by("id")
        columns = ("id", "topic", "published_partition", "published_offset", "published_at")
        seen = list(published.values_list(*columns)[: self._page])
        self._after_id = seen[-1][0] if len(seen) == self._page else 0
        settled = now - timedelta(seconds=SETTLED_SECONDS)
        rows = [
            PublishedRow(outbox_id=pk, topic=topic, partition=partition, offset=offset)
            for pk, topic, partition, offset, at in seen
            if at is not None and at < settled
        ]
        if not rows:
            return 0
        lost = self._transport.passed_over(rows)
        if self._transport.keeps_positions:
            old = now - self._unknown
            lost |= {pk for pk, _, partition, _, at in seen if partition is None and at is not None and at < old}
        return send_round_again([row for row in rows if row.outbox_id in lost], published_before=settled, now=now)

    def run(self, *, now: datetime, pages: int) -> int:
        """Look through up to so many pages, and return how many rows were lost."""
        moved = 0
        for _ in range(pages):
            moved += self.run_page(now=now)
            if self._after_id == 0:
                break
        return moved


def send_round_again(rows: Collection[PublishedRow], *, published_before: datetime, now: datetime) -> int:
    """
    Make rows ready again that are still published as they were seen, and return how many.

    Transaction: its own, by primary key; rows in another's hand are passed over.
    """
    places = {row.outbox_id: (row.partition, row.offset) for row in rows}
    return repeat_on_conflict(lambda: _send(places, published_before, now)) if places else 0


def _send(places: dict[int, tuple[int | None, int | None]], published_before: datetime, now: datetime) -> int:
    with transaction.atomic():
        lost = _lock_lost(list(places), places, published_before)
        return OutboxMessage.objects.filter(id__in=lost).update(
            status=Status.PENDING, ready_shard=F("shard"), next_retry_at=None, updated_at=now
        )


def _lock_lost(
    ids: Sequence[int], places: dict[int, tuple[int | None, int | None]], published_before: datetime
) -> list[int]:
    # By primary key alone, as everybody locks these rows; so what the row says is looked at here.
    rows = unlocked(OutboxMessage.objects.filter(id__in=ids).order_by("id"))
    columns = ("id", "status", "published_partition", "published_offset", "published_at")
    return [
        pk
        for pk, status, partition, offset, at in rows.values_list(*columns)
        if status == Status.PUBLISHED and (partition, offset) == places[pk] and at < published_before
    ]
