"""What Kafka's clients are told. No client is imported here, so that a check can read it (outbox/checks/)."""

import logging
import time
from collections.abc import Callable
from typing import Any

from django.conf import settings

logger = logging.getLogger(__name__)
librdkafka_logger = logging.getLogger("librdkafka")
SELDOM_SECONDS = 60.0


class Seldom(logging.Filter):
    """
    Lets each kind of librdkafka's complaints through once a minute.

    While the broker is away a consumer that polls makes it say twenty times a second that it cannot connect.
    """

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._monotonic = monotonic
        self._next: dict[object, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether the line is worth writing; librdkafka gives its kind (FAIL, REQTMOUT, …) as first argument."""
        kind = record.args[0] if isinstance(record.args, tuple) and record.args else record.msg
        now = self._monotonic()
        if now < self._next.get(kind, now):
            return False
        self._next[kind] = now + SELDOM_SECONDS
        return True


librdkafka_logger.addFilter(Seldom())

# The longest answer a model may give is below this; Kafka's own default of 1 MB is not.
MAX_MESSAGE_BYTES = 8 * 1024 * 1024


def common_settings() -> dict[str, Any]:
    """Return what every client is told."""
    return {
        "bootstrap.servers": ",".join(settings.KAFKA_BOOTSTRAP_SERVERS),
        "client.id": "smartflow",
        "socket.connection.setup.timeout.ms": 3000,
        "reconnect.backoff.max.ms": 2000,
        "logger": librdkafka_logger,
        # one line per lost connection and second would bury everything else while the broker is away
        "log.connection.close": False,
        "error_cb": _ignore_error,
    }


def producer_settings() -> dict[str, Any]:
    """Return what the producer is told: idempotent, acknowledged by every in-sync replica, or failed in time."""
    return common_settings() | {
        "enable.idempotence": True,
        "acks": "all",
        "message.timeout.ms": settings.OUTBOX_DELIVERY_TIMEOUT_SECONDS * 1000,
        "message.max.bytes": MAX_MESSAGE_BYTES,
        # Java's clients put a key on the same partition, should one ever share the topic
        "partitioner": "murmur2_random",
        # only while a batch is queued: flush() does not wait for it
        "linger.ms": 2,
        "compression.type": "lz4",
    }


def consumer_settings() -> dict[str, Any]:
    """Return what a member of the group is told."""
    return common_settings() | {
        "group.id": settings.OUTBOX_CONSUMER_GROUP,
        "auto.offset.reset": "earliest",
        # Only what acknowledge() stored is ever committed, and a lost assignment commits nothing.
        "enable.auto.offset.store": False,
        "enable.auto.commit": True,
        "auto.commit.interval.ms": 500,
        "partition.assignment.strategy": "cooperative-sticky",
        # A killed member's partitions move after this long; larger tolerates longer pauses of a live one.
        "session.timeout.ms": 8_000,
        "heartbeat.interval.ms": 2000,
        "max.poll.interval.ms": 300_000,
        "fetch.max.bytes": 4 * MAX_MESSAGE_BYTES,
        "allow.auto.create.topics": False,
        "topic.metadata.refresh.interval.ms": 10_000,
    }


def _ignore_error(error: Any) -> None:
    """Keep librdkafka's transient errors out of the log; failures reach the caller with each message."""
    logger.debug("librdkafka reports %s", error.name())
