"""A consumer's heartbeat: every two seconds it says who it is, how far it is, and what it has in hand.

Called by consumer.py on the thread that polls, so that a handler that takes minutes does not make it look gone.
"""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

from django.db import Error, connection

from outbox.models import Worker
from outbox.transports import PartitionPosition
from outbox.workers import HEARTBEAT_SECONDS, beat, leave, own_name, worker_name
from smartflow.kernel.clock import Clock

logger = logging.getLogger(__name__)


class Pulse:
    """Beats when it is time to. A database that is away is no reason to stop: the next beat says the same."""

    def __init__(self, *, clock: Clock, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._monotonic = monotonic
        self._next_beat = monotonic()
        self._consumed = 0

    def note_consumed(self, amount: int) -> None:
        """Add to what this process has handled."""
        self._consumed += amount

    def beat_if_due(self, *, positions: Callable[[], Sequence[PartitionPosition]], busy_seconds: float) -> None:
        """
        Write the heartbeat when the last one is old enough.

        Units: busy_seconds says how long the batch in hand takes already; 0 when none is.
        """
        if self._monotonic() < self._next_beat:
            return
        self._next_beat = self._monotonic() + HEARTBEAT_SECONDS
        try:
            state = {
                "partitions": [_tell(place) for place in positions()],
                "consumed": self._consumed,
                "busy_seconds": round(busy_seconds, 1),
            }
            beat(name=_name(), kind=Worker.Kind.CONSUMER, owner=own_name(), state=state, now=self._clock())
        except Error as error:
            logger.debug("A heartbeat could not be written", extra={"error": type(error).__name__})
            connection.close()

    def stop(self) -> None:
        """Say goodbye."""
        try:
            leave(name=_name(), owner=own_name(), now=self._clock())
        except Error as error:
            logger.debug("The goodbye could not be written", extra={"error": type(error).__name__})


def _name() -> str:
    return worker_name(Worker.Kind.CONSUMER)


def _tell(place: PartitionPosition) -> dict[str, Any]:
    lag = max(place.end - place.position, 0)
    return {
        "topic": place.topic,
        "partition": place.partition,
        "position": place.position,
        "end": place.end,
        "lag": lag,
    }
