"""Finds published rows whose message nobody will ever be given again, and sends them round again. Called by a job.

The broker is asked, not the clock: a row whose message still lies ahead of the consumers is late, not lost, however
old it is.
"""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta

from django.db import connection, transaction
from django.db.models import F, QuerySet

from outbox.database_errors import repeat_on_conflict
from outbox.locks import unlocked
from outbox.models import OutboxMessage, Status
from outbox.transports import PublishedRow, Transport
from outbox.walk import rows_of_status
from smartflow.api.index_hints import read_by

# Younger rows are on their way as a rule: consumers commit what they have done every half second.
SETTLED_SECONDS = 5.0
# Each row is a page of the table to read. Larger: many lost rows go round sooner; smaller: shorter transactions.
PAGE = 500
# The first or last published row of each partition: one dive into the index for each. STRAIGHT_JOIN and CROSS JOIN keep
# the places outside; the other way round every published row would be read.
_EDGES = """\
SELECT message.id, message.topic, message.published_partition, message.published_offset, message.published_at
FROM (
  SELECT published_partition, topic, {edge}(published_offset) AS place FROM agent_outbox_messages {index}
  WHERE status >= 'published' AND status <= 'published' GROUP BY status, published_partition, topic
) AS edge {join} agent_outbox_messages AS message {index}
ON message.status = 'published' AND message.published_partition = edge.published_partition
  AND message.topic = edge.topic AND message.published_offset = edge.place
"""
# Which row of a partition that is, and how its neighbours are read from there.
_EDGE_ORDERS = (("MIN", "published_offset"), ("MAX", "-published_offset"))
_HINTS = {
    "mysql": {"index": "FORCE INDEX (idx_outbox_place)", "join": "STRAIGHT_JOIN"},
    "sqlite": {"index": "INDEXED BY idx_outbox_place", "join": "CROSS JOIN"},
}
_COLUMNS = ("topic", "published_partition", "published_offset", "published_at")


class Rescan:
    """
    Looks for lost rows where they are: at the edges of what is published in each partition.

    A group passes messages in the order of their offsets, so what it has passed stands before all that is merely late;
    what a broker has forgotten stands before or behind it. A transport without offsets is walked through instead: its
    oldest rows each time, and those behind them a page at a time.
    """

    def __init__(self, *, transport: Transport, unknown_seconds: float, page: int = PAGE) -> None:
        self._transport = transport
        self._unknown = timedelta(seconds=unknown_seconds)
        self._page = page
        self._after_id = 0

    def run(self, *, now: datetime, pages: int) -> int:
        """
        Send lost rows round again, up to so many pages of them and at least one of each edge; return how many.

        Transaction: one a page; a row that a consumer has in hand at this moment is not lost and is passed over.
        Twice:       safe: a duplicate does no harm, because dispatch handles once.
        Raises:      TransportUnavailable: the broker says nothing, so nothing is known to be lost.
        """
        if self._transport.keeps_positions:
            return self._send_unknown(now) + self._look_at_edges(now, pages)
        return self._walk(now, pages)

    def _send_unknown(self, now: datetime) -> int:
        """Send rows round again whose place was never known: nothing but their age can be asked."""
        old = now - self._unknown
        rows = _published().filter(published_partition__isnull=True).order_by("topic", "published_offset", "id")
        return send_round_again(_older(rows[: self._page], old), published_before=old, now=now)

    def _look_at_edges(self, now: datetime, pages: int) -> int:
        moved = 0
        while pages > 0:
            found = 0
            for edge, order in self._lost_edges(now):
                rows = _published().filter(published_partition=edge.partition, topic=edge.topic).order_by(order)
                found += self._send_lost(rows[: self._page], now)
                pages -= 1
            if not found:
                break
            moved += found
        return moved

    def _lost_edges(self, now: datetime) -> list[tuple[PublishedRow, str]]:
        """Return the edges that are lost, each with the order in which it and its neighbours are read."""
        settled = now - timedelta(seconds=SETTLED_SECONDS)
        edges = [(edge, order) for which, order in _EDGE_ORDERS for edge in _read_edges(which, settled)]
        lost = self._transport.passed_over([edge for edge, _ in edges]) if edges else set()
        return [(edge, order) for edge, order in edges if edge.outbox_id in lost]

    def _walk(self, now: datetime, pages: int) -> int:
        """Look at the oldest page and the next one; where rows were lost, at up to so many."""
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
        rows = rows_of_status(status=Status.PUBLISHED).filter(id__gt=after_id).only(*_COLUMNS)
        seen = list(rows[: self._page])
        last = seen[-1].pk if len(seen) == self._page else 0
        return self._send_lost(seen, now), last

    def _send_lost(self, seen: Iterable[OutboxMessage], now: datetime) -> int:
        settled = now - timedelta(seconds=SETTLED_SECONDS)
        rows = _older(seen, settled)
        lost = self._transport.passed_over(rows) if rows else set()
        found = [row for row in rows if row.outbox_id in lost]
        return send_round_again(found, published_before=settled, now=now)


def _published() -> QuerySet[OutboxMessage]:
    rows = OutboxMessage.objects.filter(status=Status.PUBLISHED).only(*_COLUMNS)
    return read_by(rows, index="idx_outbox_place")


def _read_edges(which: str, older_than: datetime) -> list[PublishedRow]:
    sql = _EDGES.format(edge=which, **_HINTS[connection.vendor])
    return _older(OutboxMessage.objects.raw(sql), older_than)


def _older(rows: Iterable[OutboxMessage], moment: datetime) -> list[PublishedRow]:
    return [
        PublishedRow(outbox_id=row.pk, topic=row.topic, partition=row.published_partition, offset=row.published_offset)
        for row in rows
        if row.published_at is not None and row.published_at < moment
    ]


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
            status=Status.PENDING, ready_shard=F("shard"), next_retry_at=None, ready_at=now, updated_at=now
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
