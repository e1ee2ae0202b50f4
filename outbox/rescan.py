"""Finds published rows whose message nobody will ever be given again, and sends them round again. Called by a job.

The broker is asked, not the clock: a row whose message still lies ahead of the consumers is late, not lost, however
old it is.
"""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

from django.db import connection, transaction
from django.db.models import F

from outbox.claim import unlocked
from outbox.database_errors import repeat_on_conflict
from outbox.models import OutboxMessage, Status
from outbox.transports import PublishedRow, Transport

# Younger rows are on their way as a rule: consumers commit what they have done every half second.
SETTLED_SECONDS = 5.0
# Each row is a page of the table to read. Larger: a long queue is looked through sooner; smaller: that costs less.
PAGE = 500
# The index is named: else MariaDB walks the primary key, through every finished row before the first published one.
_PUBLISHED = """\
SELECT id, topic, published_partition, published_offset, published_at FROM agent_outbox_messages {index}
WHERE status = %s AND id > %s ORDER BY id LIMIT %s
"""


class Rescan:
    """
    Looks at the oldest published rows each time, and walks on through those behind them, a page at a time.

    What consumers are not given any more is among the oldest soon: what is merely late is consumed meanwhile.
    """

    def __init__(self, *, transport: Transport, unknown_seconds: float, page: int = PAGE) -> None:
        self._transport = transport
        self._unknown = timedelta(seconds=unknown_seconds)
        self._page = page
        self._after_id = 0

    def run(self, *, now: datetime, pages: int) -> int:
        """
        Look at the oldest page and the next one of the walk; where rows were lost, at up to so many. Return how many.

        Transaction: one a page; a row that a consumer has in hand at this moment is not lost and is passed over.
        Twice:       safe: a duplicate does no harm, because dispatch handles once.
        Raises:      TransportUnavailable: the broker says nothing, so nothing is known to be lost.
        """
        moved, last = self._look_behind(0, now)
        self._after_id = max(self._after_id, last) if last else 0
        for _ in range(pages - 1):
            if self._after_id == 0:
                break
            found, self._after_id = self._look_behind(self._after_id, now)
            moved += found
            if not found:
                break
        return moved

    def _look_behind(self, after_id: int, now: datetime) -> tuple[int, int]:
        """Send the lost rows of a page round again; return how many, and the page's last id, 0 when it was the end."""
        sql = _PUBLISHED.format(index="FORCE INDEX (idx_outbox_status_id)" if connection.vendor == "mysql" else "")
        seen = [
            (row.pk, row.topic, row.published_partition, row.published_offset, row.published_at)
            for row in OutboxMessage.objects.raw(sql, [Status.PUBLISHED, after_id, self._page])
        ]
        last = seen[-1][0] if len(seen) == self._page else 0
        settled = now - timedelta(seconds=SETTLED_SECONDS)
        rows = [
            PublishedRow(outbox_id=pk, topic=topic, partition=partition, offset=offset)
            for pk, topic, partition, offset, at in seen
            if at is not None and at < settled
        ]
        if not rows:
            return 0, last
        lost = self._transport.passed_over(rows)
        if self._transport.keeps_positions:
            old = now - self._unknown
            lost |= {pk for pk, _, partition, _, at in seen if partition is None and at is not None and at < old}
        found = [row for row in rows if row.outbox_id in lost]
        return send_round_again(found, published_before=settled, now=now), last


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
