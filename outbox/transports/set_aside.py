"""Messages that arrive while a batch is handled: kept in order for the next poll. Pure; kafka.py owns one a client."""

from collections.abc import Collection, Sequence

from outbox.transports.base import Delivery


class SetAside:
    """A short queue. Whoever answers the broker once a second gets a message each time, as long as a handler takes."""

    def __init__(self, *, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._deliveries: list[Delivery] = []
        self._size_bytes = 0

    def add(self, deliveries: Sequence[Delivery]) -> None:
        """Keep what came."""
        self._deliveries += deliveries
        self._size_bytes += sum(len(delivery.value) for delivery in deliveries)

    def take(self, most: int) -> list[Delivery]:
        """Return the oldest."""
        taken, rest = self._deliveries[:most], self._deliveries[most:]
        self._deliveries, self._size_bytes = [], 0
        self.add(rest)
        return taken

    def forget(self, partitions: Collection[tuple[str, int]]) -> None:
        """Drop what is another member's by now: it is delivered there."""
        kept = [delivery for delivery in self._deliveries if (delivery.topic, delivery.partition) not in partitions]
        self._deliveries, self._size_bytes = [], 0
        self.add(kept)

    def is_full(self) -> bool:
        """Tell whether it holds more than memory should be spent on."""
        return self._size_bytes > self._most_bytes
