"""How long events take, measured in the process that moves them and shown by outbox/collector.py.

Called once a batch, after its commit.
"""

import threading
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from prometheus_client.core import HistogramMetricFamily, Metric

_EVENT_SECONDS = (0.005, 0.01, 0.02, 0.04, 0.08, 0.2, 0.5, 1.0, 5.0, 15.0, 60.0, 600.0)
_BATCH_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0)


class BatchHistogram:
    """A histogram that takes many values at once; prometheus_client's own takes them one by one, each under a lock."""

    def __init__(self, name: str, text: str, *, limits: Sequence[float]) -> None:
        self._name, self._text = name, text
        self._limits = (*limits, float("inf"))
        self._lock = threading.Lock()
        self._counts = [0] * len(self._limits)
        self._sum = 0.0

    def observe(self, values: Iterable[float]) -> None:
        """Take note of the values."""
        ordered = sorted(values)
        total = sum(ordered)
        counts = [bisect_right(ordered, limit) for limit in self._limits]
        with self._lock:
            self._counts = [count + more for count, more in zip(self._counts, counts, strict=True)]
            self._sum += total

    def collect(self) -> Iterator[Metric]:
        """Yield what was observed, each limit with everything below it."""
        with self._lock:
            counts, total = self._counts, self._sum
        names = ("+Inf" if limit == float("inf") else str(limit) for limit in self._limits)
        buckets = list(zip(names, map(float, counts), strict=True))
        yield HistogramMetricFamily(self._name, self._text, buckets=buckets, sum_value=total)


PUBLISH_LATENCY = BatchHistogram(
    "outbox_publish_latency_seconds",
    "From the writing of an event to its first acknowledgement.",
    limits=_EVENT_SECONDS,
)
CONSUME_LATENCY = BatchHistogram(
    "outbox_consume_latency_seconds", "From the writing of an event to its handling.", limits=_EVENT_SECONDS
)
PUBLISH_BATCH = BatchHistogram(
    "outbox_publish_batch_seconds", "How long the transport took to acknowledge a batch.", limits=_BATCH_SECONDS
)
HANDLE_BATCH = BatchHistogram(
    "outbox_handle_batch_seconds", "How long a batch took to be handled and committed.", limits=_BATCH_SECONDS
)
HISTOGRAMS = (PUBLISH_LATENCY, CONSUME_LATENCY, PUBLISH_BATCH, HANDLE_BATCH)


def observe_published(*, written_at: Iterable[datetime], now: datetime, batch_seconds: float) -> None:
    """Take note of a batch: when those were written that were acknowledged for the first time, and how long it took."""
    PUBLISH_BATCH.observe([batch_seconds])
    PUBLISH_LATENCY.observe(_ages(written_at, now))


def observe_consumed(*, written_at: Iterable[datetime], now: datetime, batch_seconds: float) -> None:
    """Take note of a batch that was handled and committed."""
    HANDLE_BATCH.observe([batch_seconds])
    CONSUME_LATENCY.observe(_ages(written_at, now))


def _ages(written_at: Iterable[datetime], now: datetime) -> list[float]:
    # the writer's clock may be ahead
    return [max(0.0, (now - moment).total_seconds()) for moment in written_at]
