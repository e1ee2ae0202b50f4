"""Stops what would be tried in vain: one failure opens it, an answer closes it. Pure.

One stands for the broker: without it every relay would claim rows in vain, and the log would fill with one line a
batch. One stands for each topic that the broker does not take, so that the others go on.
"""

import random
import threading
from collections.abc import Callable, Iterable
from functools import partial

# Larger: a broker that comes back is noticed later; smaller: one that is away is asked more often.
SHORTEST_WAIT_SECONDS = 1.0
LONGEST_WAIT_SECONDS = 5.0
# Larger: a topic whose messages time out takes less of the time in which the others are published; smaller: its own
# events wait less when the broker takes them again.
LONGEST_TOPIC_WAIT_SECONDS = 15.0
JITTER = 0.2  # share of the wait that is added at most, so that relays do not ask in step


class Breaker:
    """Shared by the threads of a process; `monotonic` gives seconds that never go back."""

    def __init__(
        self,
        *,
        monotonic: Callable[[], float],
        spread: Callable[[], float] = random.random,
        longest_seconds: float = LONGEST_WAIT_SECONDS,
    ) -> None:
        self._monotonic = monotonic
        self._spread = spread
        self._longest_seconds = longest_seconds
        self._lock = threading.Lock()
        self._is_open = False
        self._wait_seconds = 0.0
        self._probe_at = 0.0

    @property
    def is_open(self) -> bool:
        """Tell whether nothing may be tried."""
        return self._is_open

    def note_failure(self) -> bool:
        """Take note that something was tried in vain; true when this opened it."""
        with self._lock:
            was_open, self._is_open = self._is_open, True
            self._wait_seconds = min(self._wait_seconds * 2 or SHORTEST_WAIT_SECONDS, self._longest_seconds)
            self._probe_at = self._monotonic() + self._wait_seconds * (1 + self._spread() * JITTER)
            return not was_open

    def note_answer(self) -> bool:
        """Take note that a probe was answered; true when this closed it. The next failure waits longer all the same."""
        with self._lock:
            was_open, self._is_open = self._is_open, False
            return was_open

    def note_success(self) -> bool:
        """Take note that something was published; true when this closed it."""
        with self._lock:
            was_open, self._is_open = self._is_open, False
            self._wait_seconds = 0.0
            return was_open

    def seconds_to_probe(self) -> float:
        """Return how long to wait before the next try; zero when it is time, or when it is closed."""
        with self._lock:
            return max(self._probe_at - self._monotonic(), 0.0) if self._is_open else 0.0


class TopicBreakers:
    """A breaker for each topic that the broker did not take; shared like a breaker."""

    def __init__(self, *, monotonic: Callable[[], float], spread: Callable[[], float] = random.random) -> None:
        self._make = partial(Breaker, monotonic=monotonic, spread=spread, longest_seconds=LONGEST_TOPIC_WAIT_SECONDS)
        self._by_topic: dict[str, Breaker] = {}

    def note_failure(self, topic: str) -> bool:
        """Take note that nothing was taken for the topic; true when it was all right before."""
        return self._by_topic.setdefault(topic, self._make()).note_failure()

    def note_success(self, topics: Iterable[str]) -> list[str]:
        """Take note that something was published to the topics; return those that were refused before."""
        return [topic for topic in self._by_topic.keys() & set(topics) if self._by_topic[topic].note_success()]

    @property
    def is_any_open(self) -> bool:
        """Tell whether the broker does not take some topic."""
        return any(breaker.is_open for breaker in list(self._by_topic.values()))

    def waits(self) -> dict[str, float]:
        """Return the topics that are not to be tried now, and for how many seconds more."""
        waits = ((topic, breaker.seconds_to_probe()) for topic, breaker in list(self._by_topic.items()))
        return {topic: seconds for topic, seconds in waits if seconds > 0}
