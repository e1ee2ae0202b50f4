"""What a transport is: publishes messages with an acknowledgement, and delivers them until they are acknowledged.

Two exist: local.py needs no broker, kafka.py is Kafka. tests/transport_contract.py holds both to the same promises.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

Headers = tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class OutgoingMessage:
    """A message to publish; `outbox_id` names it in the answer."""

    outbox_id: int
    topic: str
    key: str
    value: bytes
    headers: Headers = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishFailure:
    """
    Why one message was not acknowledged.

    Permanent: the same message can never be accepted. Of the topic: the broker answers, and takes nothing for it now.
    """

    reason: str
    is_permanent: bool
    is_of_topic: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishResult:
    """
    What became of a publish, by outbox_id. A message without a failure was acknowledged and is durable.

    `positions`: where the broker keeps it, (partition, offset); absent where the transport has no such numbers.
    """

    failures: dict[int, PublishFailure] = field(default_factory=dict)
    positions: dict[int, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedRow:
    """A row that was published and is not finished, with its place in the broker."""

    outbox_id: int
    topic: str
    partition: int | None
    offset: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivery:
    """A message as it came. `offset` is the transport's own number within (topic, partition)."""

    topic: str
    partition: int
    offset: int
    key: str
    value: bytes
    headers: Headers = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class PartitionPosition:
    """How far a consumer is in one of its partitions: the next offset it reads, and the end of the partition."""

    topic: str
    partition: int
    position: int
    end: int


@dataclass(frozen=True, kw_only=True, slots=True)
class TopicShape:
    """What a broker says of a topic; `retention_seconds` is None when it keeps messages for ever."""

    partitions: int
    copies: int
    retention_seconds: float | None


class TransportUnavailable(Exception):
    """The transport does not answer; the same call may succeed later."""


class TransportConsumer(Protocol):
    """One member of the consumer group. Used by one thread, but for keep_alive()."""

    def poll(self, *, max_messages: int, timeout_seconds: float) -> list[Delivery]:
        """Return the next messages, in order within a key; empty after the timeout. Raises: TransportUnavailable."""

    def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Never deliver these again. Called only after the database holds the result; a crash before it redelivers."""

    def positions(self) -> list[PartitionPosition]:
        """Return how far this member is in each of its partitions; from what is known already, possibly empty."""

    def keep_alive(self) -> None:
        """
        Stay in the group while a batch is handled: fetch nothing, and answer the broker.

        Called again and again by the thread that polls, while another handles; the next poll() goes on fetching.
        """

    def close(self) -> None:
        """Leave the group; what was not acknowledged goes to another member."""


class Transport(Protocol):
    """How a message travels. Used by several threads and processes."""

    @property
    def keeps_positions(self) -> bool:
        """Tell whether an acknowledgement says where the broker keeps the message."""

    def publish(self, messages: Sequence[OutgoingMessage], *, timeout_seconds: float) -> PublishResult:
        """
        Publish in the given order and wait for every acknowledgement, at most `timeout_seconds`.

        Twice: publishes twice; consumers see a duplicate.
        """

    def passed_over(self, rows: Sequence[PublishedRow]) -> set[int]:
        """
        Return the outbox_ids of rows that no consumer will ever be given again.

        The group has passed their place, or the broker does not keep it any more. Rows whose place is unknown, or about
        which the broker says nothing now, are not among them. Raises: TransportUnavailable.
        """

    def check(self, *, timeout_seconds: float = 1.0) -> None:
        """Ask the broker for an answer. Raises: TransportUnavailable."""

    def open_consumer(self) -> TransportConsumer:
        """Join the consumer group."""

    def close(self) -> None:
        """Give connections back."""
