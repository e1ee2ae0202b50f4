"""Every metric of the outbox: what the rows say, read when a scraper asks, and what this process counts and measures.

Every read is bounded and goes through an index, and is made at most every few seconds however many scrapers ask. A
database that is away is a value (outbox_database_up 0), never an error.
"""

import logging
import re
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from django.db import DatabaseError, InterfaceError, connection
from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from outbox.database_clock import database_now
from outbox.metrics import HISTOGRAMS
from outbox.models import Worker
from outbox.queries import COUNT_CAP, OutboxDepth, Overview, overview
from outbox.queries.console import DEAD_SEEN, DEAD_SHOWN, WorkerState
from outbox.queries.depth import ROWS_CAP
from outbox.shards import SHARDS
from outbox.tally import TALLY
from outbox.workers import GONE_SECONDS

logger = logging.getLogger(__name__)

# Larger: older values. Smaller: more reads, when several scrapers ask.
CACHE_SECONDS = 3.0
# A scraper waits no longer for another's read: then the database hangs.
_WAIT_SECONDS = 2.0
_REASON = re.compile(r"[A-Za-z_][\w. ]{0,48}")
_COUNTED = {
    "published": "Events whose publishing was acknowledged and noted.",
    "consumed": "Events that were handled.",
    "retried": "Tries that failed and will be repeated.",
    "dead": "Events that became dead letters.",
    "fenced": "Rows that were another's when a relay came to settle them.",
    "duplicates": "Messages that had been handled before, and were left alone.",
    "violations": "Events that were published after a later one of their key.",
    "conflicts": "Transactions that the database chose as the loser of a conflict, and that were repeated.",
}


class OutboxCollector(Collector):
    """The outbox's gauges and this process's counts."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._read_at = -CACHE_SECONDS
        self._gauges: list[Metric] = [_database_up(False)]

    def describe(self) -> list[Metric]:
        """Name nothing: otherwise registering would read the tables."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield every metric."""
        yield from _counters()
        for histogram in HISTOGRAMS:
            yield from histogram.collect()
        yield from self._cached_gauges()

    def _cached_gauges(self) -> list[Metric]:
        if not self._lock.acquire(timeout=_WAIT_SECONDS):
            return [_database_up(False)]
        try:
            if time.monotonic() - self._read_at >= CACHE_SECONDS:
                self._gauges = _read_gauges()
                self._read_at = time.monotonic()
            return self._gauges
        finally:
            self._lock.release()


def _counters() -> Iterator[Metric]:
    totals = TALLY.totals()
    for name, text in _COUNTED.items():
        yield CounterMetricFamily(f"outbox_{name}", text, value=totals[name])
    tries = totals["consumed"] + totals["retried"] + totals["dead"]
    yield CounterMetricFamily("outbox_attempts", "Tries that ended, well or not.", value=tries)


def _database_up(is_up: bool) -> Metric:
    return GaugeMetricFamily("outbox_database_up", "Whether the database answered the last look.", value=int(is_up))


def _read_gauges() -> list[Metric]:
    try:
        seen = overview(now=database_now())
    except (DatabaseError, InterfaceError) as error:
        logger.info("Metrics cannot be read from the database", extra={"error": type(error).__name__})
        return [_database_up(False)]
    finally:
        # the thread that asked ends, and its connection would stay
        if not connection.in_atomic_block:
            connection.close()
    return [_database_up(True), *_depth(seen.depth), _paused(seen), _dead(seen), *_workers(seen.workers), _lag(seen)]


def _depth(depth: OutboxDepth) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "outbox_lag_seconds",
        "Age of the oldest event that a relay may publish now; blocked ones and those that wait for a retry left out.",
        value=depth.oldest_ready_seconds or 0,
    )
    yield GaugeMetricFamily(
        "outbox_oldest_pending_seconds",
        "Age of the oldest event that is not published, blocked ones included.",
        value=depth.oldest_pending_seconds or 0,
    )
    yield GaugeMetricFamily(
        "outbox_oldest_published_seconds",
        "For how long the oldest event that is not handled has been published.",
        value=depth.oldest_published_seconds or 0,
    )
    keys = depth.blocked_keys.value
    yield GaugeMetricFamily("outbox_blocked_keys", "Keys with events that wait behind one that blocks.", value=keys)
    text = (
        f"Events by state, each counted up to {COUNT_CAP}, in_flight up to {ROWS_CAP};"
        " a value at its limit means at least that many."
    )
    family = GaugeMetricFamily("outbox_rows", text, labels=["state"])
    for state in ("pending", "ready", "in_flight", "waiting", "held", "published", "dead"):
        family.add_metric([state], getattr(depth, state).value)
    yield family


def _paused(seen: Overview) -> Metric:
    family = GaugeMetricFamily(
        "outbox_paused_since", "When an event type was paused, as a time.", labels=["event_type"]
    )
    for pause in seen.paused:
        family.add_metric([pause.event_type], pause.since.timestamp())
    return family


def _dead(seen: Overview) -> Metric:
    text = f"Dead letters that wait for a decision, among {DEAD_SEEN}; the {DEAD_SHOWN} most common kinds."
    family = GaugeMetricFamily("outbox_dead_letters", text, labels=["event_type", "reason"])
    counts: Counter[tuple[str, str]] = Counter()
    for group in seen.dead:
        # never the message of an error: that would make a label of every value in it
        counts[group.event_type, group.reason if _REASON.fullmatch(group.reason) else "other"] += group.count
    for labels, count in counts.items():
        family.add_metric(labels, count)
    return family


def _workers(workers: Sequence[WorkerState]) -> Iterator[Metric]:
    age = GaugeMetricFamily(
        "outbox_heartbeat_age_seconds", "How long ago a worker was heard of.", labels=["kind", "worker"]
    )
    breaker = GaugeMetricFamily(
        "outbox_breaker_open", "Whether a relay claims nothing, because the broker is away.", labels=["worker"]
    )
    live = GaugeMetricFamily(
        "outbox_live_workers", f"Workers that were heard of within {GONE_SECONDS:g} seconds.", labels=["kind"]
    )
    relays = [worker for worker in workers if worker.kind == Worker.Kind.RELAY]
    for worker in workers:
        age.add_metric([worker.kind, worker.name], worker.heartbeat_seconds)
    for relay in relays:
        breaker.add_metric([relay.name], int(relay.is_breaker_open))
    for kind in Worker.Kind.values:
        live.add_metric([kind], sum(worker.is_live for worker in workers if worker.kind == kind))
    yield from (age, breaker, live, _uncovered_shards(relays))


def _uncovered_shards(relays: Iterable[WorkerState]) -> Metric:
    covered: set[int] = set()
    for relay in relays:
        if relay.is_live:
            # one that has just begun has not said yet which shards it takes
            first, last = relay.state.get("shards") or (0, SHARDS - 1)
            covered.update(range(first, last + 1))
    missing = SHARDS - len(covered)
    return GaugeMetricFamily("outbox_uncovered_shards", "Shards that no live relay takes care of.", value=missing)


def _lag(seen: Overview) -> Metric:
    text = "Messages of a partition that its consumer has not handled."
    family = GaugeMetricFamily("outbox_consumer_lag_messages", text, labels=["topic", "partition"])
    # right after a rebalance two consumers may still name the same partition
    lags = {(place.topic, str(place.partition)): place.lag for place in seen.partitions}
    for name, lag in lags.items():
        family.add_metric(name, lag)
    return family


REGISTRY.register(OutboxCollector())
