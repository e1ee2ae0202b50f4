"""The transport without a broker: messages wait in a table of the same database. Durable, and slower than Kafka.

Several consumers may see the same message; dispatch handles it once. Order per key is the order of publishing.
"""

import time
from collections.abc import Iterator, Sequence

from django.db import DatabaseError, transaction

from outbox.models import LocalMessage
from outbox.transports.base import Delivery, OutgoingMessage, PublishFailure, TransportUnavailable

# Shorter: a message is seen sooner and the idle database is asked more often (five times a second at 0.2).
_SHORTEST_WAIT_SECONDS = 0.01
_LONGEST_WAIT_SECONDS = 0.2
# One INSERT's worth. MariaDB refuses a statement of 16 MB, and a batch that is refused would be refused for ever.
_PORTION_BYTES = 1024 * 1024
_PORTION_MESSAGES = 500


class LocalTransport:
    """Publishes by inserting rows."""

    def publish(self, messages: Sequence[OutgoingMessage], *, timeout_seconds: float) -> dict[int, PublishFailure]:
        """Insert all messages or none; the commit is the acknowledgement."""
        try:
            with transaction.atomic():
                for portion in _portions(messages):
                    LocalMessage.objects.bulk_create(
                        LocalMessage(outbox_id=m.outbox_id, topic=m.topic, message_key=m.key, value=m.value.decode())
                        for m in portion
                    )
        except DatabaseError as error:
            failure = PublishFailure(reason=type(error).__name__, is_permanent=False)
            return {message.outbox_id: failure for message in messages}
        return {}

    def is_ready(self) -> bool:
        """Say yes: where the database is away, nothing was claimed either."""
        return True

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
    return Delivery(topic=row.topic, partition=0, offset=row.pk, key=row.message_key, value=row.value.encode())
