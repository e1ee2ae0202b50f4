"""outbox/metrics.py and outbox/tally.py: what a process counts, and what it costs."""

import time
from datetime import UTC, datetime, timedelta

import pytest

from outbox import metrics
from outbox.tally import NAMES, Tally

NOW = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)


def sample(histogram, suffix, **labels):
    """Return one value of a histogram."""
    for metric in histogram.collect():
        for found in metric.samples:
            if found.name.endswith(suffix) and found.labels == labels:
                return found.value
    raise LookupError(suffix)


@pytest.mark.parametrize(
    ("observe", "latency", "batch"),
    [
        (metrics.observe_published, metrics.PUBLISH_LATENCY, metrics.PUBLISH_BATCH),
        (metrics.observe_consumed, metrics.CONSUME_LATENCY, metrics.HANDLE_BATCH),
    ],
)
def test_observe_takes_note_of_every_event_and_of_the_batch(observe, latency, batch):
    before = [sample(latency, "_count"), sample(latency, "_sum"), sample(batch, "_count"), sample(batch, "_sum")]
    ages = (0.25, 1.5, -0.5)  # the last one was written by a clock that is ahead

    observe(written_at=[NOW - timedelta(seconds=age) for age in ages], now=NOW, batch_seconds=0.125)

    after = [sample(latency, "_count"), sample(latency, "_sum"), sample(batch, "_count"), sample(batch, "_sum")]
    assert [a - b for a, b in zip(after, before, strict=True)] == pytest.approx([3, 1.75, 1, 0.125])


def test_observe_costs_little():
    """At 6,000 events a second 8 µs each would be 5 %; it takes a small part of that."""
    moments = [NOW - timedelta(milliseconds=number) for number in range(5000)]

    def seconds() -> float:
        started = time.process_time()
        metrics.observe_published(written_at=moments, now=NOW, batch_seconds=0.1)
        return time.process_time() - started

    assert min(seconds() for _ in range(5)) / len(moments) < 8e-6


def test_a_value_on_a_limit_is_below_it():
    histogram = metrics.PUBLISH_BATCH
    before = [sample(histogram, "_bucket", le=limit) for limit in ("0.05", "0.1", "+Inf")]
    histogram.observe([0.1, 0.100001, 1000])

    after = [sample(histogram, "_bucket", le=limit) for limit in ("0.05", "0.1", "+Inf")]
    assert [a - b for a, b in zip(after, before, strict=True)] == [0, 1, 3]


def test_totals_go_on_when_a_heartbeat_takes_what_was_counted():
    tally = Tally()
    tally.add("published", 3)
    assert tally.take() == {"published": 3}
    tally.add("published", 2)

    assert tally.totals() == {**dict.fromkeys(NAMES, 0), "published": 5}


def test_totals_count_once_what_is_put_back():
    tally = Tally()
    tally.add("published", 3)
    tally.restore(tally.take())

    assert tally.totals()["published"] == 3
    assert tally.take() == {"published": 3}
