"""The transport without a broker: messages wait in a table of the same database. Durable, and slower than Kafka.

Several consumers may see the same message; dispatch handles it once. Order per key is the order of publishing.
"""

import time
from collections.abc import Iterator, Sequence

from django.db import DatabaseError, transaction
from django.db.models import Max, Min

from outbox.models import LocalMessage
from outbox.transports.base import (
    Delivery,
    OutgoingMessage,
    PartitionPosition,
    PublishedRow,
    PublishFailure,
    PublishResult,
    TransportUnavailable,
)

# Shorter: a message is seen sooner and the idle database is asked more often (five times a second at 0.2).
_SHORTEST_WAIT_SECONDS = 0.01
_LONGEST_WAIT_SECONDS = 0.2
# One INSERT's worth. MariaDB refuses a statement of 16 MB, and a batch that is refused would be refused for ever.
_PORTION_BYTES = 1024 * 1024
_PORTION_MESSAGES = 500


class LocalTransport:
    """Publishes by inserting rows."""

    keeps_positions = False

    def publish(self, messages: Sequence[OutgoingMessage], *, timeout_seconds: float) -> PublishResult:
        """Insert all messages or none; the commit is the acknowledgement."""
        try:
            with transaction.atomic():
                for portion in _portions(messages):
                    LocalMessage.objects.bulk_create(
                        LocalMessage(
                            outbox_id=m.outbox_id,
                            topic=m.topic,
                            message_key=m.key,
                            value=m.value.decode(),
                            headers=[(name, value.decode("latin-1")) for name, value in m.headers],
                        )
                        for m in portion
                    )
        except DatabaseError as error:
            failure = PublishFailure(reason=type(error).__name__, is_permanent=False)
            return PublishResult(failures={message.outbox_id: failure for message in messages})
        return PublishResult()

    def passed_over(self, rows: Sequence[PublishedRow]) -> set[int]:
        """Return the rows without a message: one that waits is handed to somebody in the end."""
        ids = {row.outbox_id for row in rows}
        return ids - set(LocalMessage.objects.filter(outbox_id__in=ids).values_list("outbox_id", flat=True))

    def check(self, *, timeout_seconds: float = 1.0) -> None:
        """Read from the table. Raises: TransportUnavailable."""
        try:
            LocalMessage.objects.exists()
        except DatabaseError as error:
            raise TransportUnavailable(type(error).__name__) from error

    def open_consumer(self) -> "LocalConsumer":
        """Return a reader; there is no group to join."""
        return LocalConsumer()

    def close(self) -> None:
        """Do nothing: the database connection is Django's."""


class LocalConsumer:
    """Reads rows by id and deletes them when they are acknowledged."""

    def __init__(self) -> None:
        self._in_hand: set[int] = set()

    def poll(self, *, max_messages: int, timeout_seconds: float) -> list[Delivery]:
        """Return the oldest messages that were not returned before, waiting up to the timeout for the first."""
        deadline = time.monotonic() + timeout_seconds
        wait = _SHORTEST_WAIT_SECONDS
        while True:
            rows = list(LocalMessage.objects.exclude(pk__in=self._in_hand).order_by("pk")[:max_messages])
            if rows:
                self._in_hand.update(row.pk for row in rows)
                return [_delivery(row) for row in rows]
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return []
            time.sleep(min(wait, remaining))
            wait = min(wait * 2, _LONGEST_WAIT_SECONDS)

    def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Delete the rows by primary key."""
        offsets = [delivery.offset for delivery in deliveries]
        LocalMessage.objects.filter(pk__in=offsets).delete()
        self._in_hand.difference_update(offsets)

    def positions(self) -> list[PartitionPosition]:
        """Return one pseudo partition: the oldest message that nobody acknowledged, and the newest."""
        ends = LocalMessage.objects.aggregate(first=Min("pk"), last=Max("pk"))
        if ends["last"] is None:
            return []
        return [PartitionPosition(topic="local", partition=0, position=ends["first"], end=ends["last"] + 1)]

    def keep_alive(self) -> None:
        """Do nothing: there is no group to be thrown out of."""

    def close(self) -> None:
        """Forget what was in hand; the rows are still there for the next reader."""
        self._in_hand.clear()


def _portions(messages: Sequence[OutgoingMessage]) -> Iterator[list[OutgoingMessage]]:
    portion: list[OutgoingMessage] = []
    size_bytes = 0
    for message in messages:
        if portion and (len(portion) == _PORTION_MESSAGES or size_bytes + len(message.value) > _PORTION_BYTES):
            yield portion
            portion, size_bytes = [], 0
        portion.append(message)
        size_bytes += len(message.value)
    if portion:
        yield portion


def _delivery(row: LocalMessage) -> Delivery:
    return Delivery(
        topic=row.topic,
        partition=0,
        offset=row.pk,
        key=row.message_key,
        value=row.value.encode(),
        headers=tuple((name, value.encode("latin-1")) for name, value in row.headers),
    )
