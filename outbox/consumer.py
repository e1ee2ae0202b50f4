"""Step 3: poll → dispatch → acknowledge. One consumer runs in one process; the group spreads partitions over them.

An offset is stored only after the database holds the result. While the database is away the message in hand is tried
again and again: nothing is acknowledged, nothing is counted as an attempt. Handlers may take minutes: they run on a
second thread, and the one that polls stays in the group meanwhile.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Protocol, TypeVar

from django.db import InterfaceError, OperationalError, connection

from outbox.dispatch import Outcome, dispatch_messages
from outbox.pulse import Pulse
from outbox.tracing import handling
from outbox.transports import Delivery, TransportConsumer, TransportUnavailable
from smartflow.kernel.clock import Clock

logger = logging.getLogger(__name__)

# Larger: fewer commits a message, a longer transaction, and more to handle again after a kill.
BATCH = 500
POLL_SECONDS = 1.0
# How often the group hears of a member whose handler is at work. Larger: a rebalance waits longer for it.
KEEP_ALIVE_SECONDS = 1.0
# While the database or the broker is away: from the shortest to the longest wait between two tries.
_SHORTEST_WAIT_SECONDS = 0.2
_LONGEST_WAIT_SECONDS = 3.0

_T = TypeVar("_T")
Wait = Callable[[float], bool]
"""Waits the given seconds, less when the process is asked to stop; true when it was."""


class Stopped(Exception):
    """The process was asked to stop while a message could not be handled; the message stays unacknowledged."""


class Hands(Protocol):
    """Where handlers run."""

    def work(self, step: Callable[[], _T], *, meanwhile: Callable[[], None]) -> _T:
        """Run a step and return its result; `meanwhile` is called about once a second until then."""

    def close(self) -> None:
        """Give back what the steps used."""


class SameThread:
    """Runs handlers where the consumer runs; nothing happens meanwhile. For tests and what is sure to be short."""

    def work(self, step: Callable[[], _T], *, meanwhile: Callable[[], None]) -> _T:
        """Run the step."""
        return step()

    def close(self) -> None:
        """Do nothing."""


class SecondThread:
    """Runs handlers on a thread of its own, which has a database connection of its own."""

    def __init__(self, *, every_seconds: float = KEEP_ALIVE_SECONDS) -> None:
        self._every_seconds = every_seconds
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="outbox-handlers")

    def work(self, step: Callable[[], _T], *, meanwhile: Callable[[], None]) -> _T:
        """Run the step over there, and `meanwhile` here."""
        future = self._pool.submit(step)
        while not wait([future], timeout=self._every_seconds).done:
            meanwhile()
        return future.result()

    def close(self) -> None:
        """Close the thread's connection and end it."""
        self._pool.submit(lambda: connection.close())  # looked up over there: each thread has its own
        self._pool.shutdown()


class EventConsumer:
    """The loop, with everything it touches given from outside."""

    def __init__(
        self,
        *,
        source: TransportConsumer,
        clock: Clock,
        wait: Wait,
        hands: Hands | None = None,
        pulse: Pulse | None = None,
    ) -> None:
        self._source = source
        self._clock = clock
        self._wait = wait
        self._hands = hands or SameThread()
        self._pulse = pulse
        self._is_transport_away = False

    def run(self) -> None:
        """Handle messages until asked to stop; then leave the group."""
        try:
            while not self._wait(0):
                self._beat()
                self.run_once(timeout_seconds=POLL_SECONDS)
        except Stopped:
            logger.info("Stopped with a message in hand; it will be delivered again")
        finally:
            self._hands.close()
            self._source.close()
            if self._pulse:
                self._pulse.stop()

    def run_once(self, *, timeout_seconds: float) -> Counter[Outcome]:
        """Poll one batch, handle it, acknowledge it; return how many came to which outcome."""
        deliveries = self._poll(timeout_seconds)
        if not deliveries:
            return Counter()
        started = time.monotonic()

        def stay() -> None:
            self._source.keep_alive()
            self._beat(busy_seconds=time.monotonic() - started)

        outcomes = self._hands.work(lambda: self._handle(deliveries), meanwhile=stay)
        self._until_database_answers(lambda: self._source.acknowledge(deliveries))
        counts = Counter(outcomes)
        if self._pulse:
            self._pulse.note_consumed(counts[Outcome.CONSUMED])
        return counts

    def _handle(self, deliveries: Sequence[Delivery]) -> list[Outcome]:
        values = [delivery.value for delivery in deliveries]
        with handling(deliveries) as spans:
            outcomes = self._until_database_answers(lambda: dispatch_messages(values=values, clock=self._clock))
            spans.note(outcomes)
        return outcomes

    def _beat(self, *, busy_seconds: float = 0.0) -> None:
        if self._pulse:
            self._pulse.beat_if_due(positions=self._source.positions, busy_seconds=busy_seconds)

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
