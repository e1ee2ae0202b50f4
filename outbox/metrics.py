"""How long events take, measured in the process that moves them; outbox/collector.py adds what the rows say.

Called once a batch, after its commit. A thousand observations take about a millisecond.
"""

from collections.abc import Iterable
from datetime import datetime

from prometheus_client import Histogram

_EVENT_SECONDS = (0.005, 0.01, 0.02, 0.04, 0.08, 0.2, 0.5, 1, 5, 15, 60, 600)
_BATCH_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 15, 60)

PUBLISH_LATENCY = Histogram(
    "outbox_publish_latency_seconds", "From the writing of an event to its acknowledgement.", buckets=_EVENT_SECONDS
)
CONSUME_LATENCY = Histogram(
    "outbox_consume_latency_seconds", "From the writing of an event to its handling.", buckets=_EVENT_SECONDS
)
PUBLISH_BATCH = Histogram(
    "outbox_publish_batch_seconds", "How long the transport took to acknowledge a batch.", buckets=_BATCH_SECONDS
)
HANDLE_BATCH = Histogram(
    "outbox_handle_batch_seconds", "How long a batch took to be handled and committed.", buckets=_BATCH_SECONDS
)


def observe_published(*, written_at: Iterable[datetime], now: datetime, batch_seconds: float) -> None:
    """Take note of a batch that was acknowledged: when its events were written, and how long the transport took."""
    PUBLISH_BATCH.observe(batch_seconds)
    _observe(PUBLISH_LATENCY, written_at, now)


def observe_consumed(*, written_at: Iterable[datetime], now: datetime, batch_seconds: float) -> None:
    """Take note of a batch that was handled and committed."""
    HANDLE_BATCH.observe(batch_seconds)
    _observe(CONSUME_LATENCY, written_at, now)


def _observe(histogram: Histogram, written_at: Iterable[datetime], now: datetime) -> None:
    observe = histogram.observe
    for moment in written_at:
        observe(max(0.0, (now - moment).total_seconds()))
