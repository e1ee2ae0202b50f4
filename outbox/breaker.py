"""Stops claiming while the broker is away: one failure opens it, one answered probe closes it. Pure.

Without it every relay would claim rows in vain, and the log would fill with one line a batch.
"""

import random
import threading
from collections.abc import Callable

# Larger: a broker that comes back is noticed later; smaller: one that is away is asked more often.
SHORTEST_WAIT_SECONDS = 1.0
LONGEST_WAIT_SECONDS = 5.0
JITTER = 0.2  # share of the wait that is added at most, so that relays do not ask in step


class Breaker:
    """Shared by the threads of a process; `monotonic` gives seconds that never go back."""

    def __init__(self, *, monotonic: Callable[[], float], spread: Callable[[], float] = random.random) -> None:
        self._monotonic = monotonic
        self._spread = spread
        self._lock = threading.Lock()
        self._wait_seconds = 0.0
        self._probe_at = 0.0

    @property
    def is_open(self) -> bool:
        """Tell whether nothing may be claimed."""
        return self._wait_seconds > 0

    def note_failure(self) -> bool:
        """Take note that the broker did not answer; true when this opened it."""
        with self._lock:
            was_closed = self._wait_seconds == 0
            self._wait_seconds = min(self._wait_seconds * 2 or SHORTEST_WAIT_SECONDS, LONGEST_WAIT_SECONDS)
            self._probe_at = self._monotonic() + self._wait_seconds * (1 + self._spread() * JITTER)
            return was_closed

    def note_success(self) -> bool:
        """Take note that the broker answered; true when this closed it."""
        with self._lock:
            was_open = self._wait_seconds > 0
            self._wait_seconds = 0.0
            return was_open

    def seconds_to_probe(self) -> float:
        """Return how long to wait before the broker is asked again; zero when it is time, or when it is closed."""
        with self._lock:
            return max(self._probe_at - self._monotonic(), 0.0) if self._wait_seconds else 0.0
