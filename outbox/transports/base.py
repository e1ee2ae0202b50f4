"""What a transport is: publishes messages with an acknowledgement, and delivers them until they are acknowledged.

Two exist: local.py needs no broker, kafka.py is Kafka. tests/services/test_transport_contract.py holds both to the
same promises.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, kw_only=True)
class OutgoingMessage:
    """A message to publish; `outbox_id` names it in the answer."""

    outbox_id: int
    topic: str
    key: str
    value: bytes


@dataclass(frozen=True, kw_only=True)
class PublishFailure:
    """Why one message was not acknowledged. Permanent: the same message can never be accepted."""

    reason: str
    is_permanent: bool


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """A message as it came. `offset` is the transport's own number within (topic, partition)."""

    topic: str
    partition: int
    offset: int
    key: str
    value: bytes


class TransportUnavailable(Exception):
    """The transport does not answer; the same call may succeed later."""


class TransportConsumer(Protocol):
    """One member of the consumer group. Used by one thread."""

    def poll(self, *, max_messages: int, timeout_seconds: float) -> list[Delivery]:
        """Return the next messages, in order within a key; empty after the timeout. Raises: TransportUnavailable."""

    def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Never deliver these again. Called only after the database holds the result; a crash before it redelivers."""

    def close(self) -> None:
        """Leave the group; what was not acknowledged goes to another member."""


class Transport(Protocol):
    """How a message travels. Used by several threads and processes."""

    def publish(self, messages: Sequence[OutgoingMessage], *, timeout_seconds: float) -> dict[int, PublishFailure]:
        """
        Publish in the given order and wait for every acknowledgement, at most `timeout_seconds`.

        Shape: outbox_id → failure; a message that is absent was acknowledged and is durable.
        Twice: publishes twice; consumers see a duplicate.
        """

    def is_ready(self) -> bool:
        """Tell whether a publish is worth trying: false while the broker is known to be away. Bounded to a second."""

    def check(self, *, timeout_seconds: float = 1.0) -> None:
        """Ask the broker for an answer. Raises: TransportUnavailable."""

    def open_consumer(self) -> TransportConsumer:
        """Join the consumer group."""

    def close(self) -> None:
        """Give connections back."""
