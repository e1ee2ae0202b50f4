"""Step 3: poll → dispatch → acknowledge. One consumer runs in one process; the group spreads partitions over them.

An offset is stored only after the database holds the result. While the database is away the message in hand is tried
again and again: nothing is acknowledged, nothing is counted as an attempt.
"""

import logging
from collections import Counter
from collections.abc import Callable
from typing import TypeVar

from django.db import InterfaceError, OperationalError, connection

from outbox import tracing
from outbox.dispatch import Outcome, dispatch_messages
from outbox.transports import Delivery, TransportConsumer, TransportUnavailable
from smartflow.kernel.clock import Clock

logger = logging.getLogger(__name__)

# Larger: fewer commits a message, a longer transaction, and more to handle again after a kill.
BATCH = 200
POLL_SECONDS = 1.0
# While the database or the broker is away: from the shortest to the longest wait between two tries.
_SHORTEST_WAIT_SECONDS = 0.2
_LONGEST_WAIT_SECONDS = 3.0

_T = TypeVar("_T")
Wait = Callable[[float], bool]
"""Waits the given seconds, less when the process is asked to stop; true when it was."""


class Stopped(Exception):
    """The process was asked to stop while a message could not be handled; the message stays unacknowledged."""


class EventConsumer:
    """The loop, with everything it touches given from outside."""

    def __init__(self, *, source: TransportConsumer, clock: Clock, wait: Wait) -> None:
        self._source = source
        self._clock = clock
        self._wait = wait
        self._is_transport_away = False

    def run(self) -> None:
        """Handle messages until asked to stop; then leave the group."""
        try:
            while not self._wait(0):
                self.run_once(timeout_seconds=POLL_SECONDS)
        except Stopped:
            logger.info("Stopped with a message in hand; it will be delivered again")
        finally:
            self._source.close()

    def run_once(self, *, timeout_seconds: float) -> Counter[Outcome]:
        """Poll one batch, handle it, acknowledge it; return how many came to which outcome."""
        deliveries = self._poll(timeout_seconds)
        if not deliveries:
            return Counter()
        values = [delivery.value for delivery in deliveries]
        with tracing.handling(deliveries) as spans:
            outcomes = self._until_database_answers(lambda: dispatch_messages(values=values, clock=self._clock))
            spans.note(outcomes)
        self._until_database_answers(lambda: self._source.acknowledge(deliveries))
        return Counter(outcomes)

    def _poll(self, timeout_seconds: float) -> list[Delivery]:
        try:
            deliveries = self._source.poll(max_messages=BATCH, timeout_seconds=timeout_seconds)
        except (TransportUnavailable, OperationalError, InterfaceError) as error:
            self._note_transport(away=True, error=error)
            connection.close()
            self._wait(_LONGEST_WAIT_SECONDS)
            return []
        self._note_transport(away=False)
        return deliveries

    def _note_transport(self, *, away: bool, error: Exception | None = None) -> None:
        """Log a change of state once, not every poll."""
        if away and not self._is_transport_away:
            logger.warning("The transport does not answer", extra={"error": type(error).__name__})
        elif self._is_transport_away and not away:
            logger.info("The transport answers again")
        self._is_transport_away = away

    def _until_database_answers(self, step: Callable[[], _T]) -> _T:
        seconds = _SHORTEST_WAIT_SECONDS
        while True:
            try:
                return step()
            except (OperationalError, InterfaceError) as error:
                if seconds == _SHORTEST_WAIT_SECONDS:
                    logger.warning("The database does not answer", extra={"error": type(error).__name__})
                connection.close()
                if self._wait(seconds):
                    raise Stopped from error
                seconds = min(seconds * 2, _LONGEST_WAIT_SECONDS)
