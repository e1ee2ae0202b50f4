"""What the rows say of the outbox, read when a scraper asks; outbox/metrics.py measures how long events take.

Every read is bounded and goes through an index, and is made at most every few seconds however many scrapers ask. A
database that is away is a value (outbox_database_up 0), never an error.
"""

import logging
import re
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

from django.db import DatabaseError, InterfaceError, connection
from django.db.models import Min
from django.db.models.functions import Substr
from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from outbox.database_clock import database_now
from outbox.models import KeyHold, OutboxMessage, PausedType, Status, Worker
from outbox.queries import COUNT_CAP, OutboxDepth, depth_and_lag
from outbox.shards import SHARDS
from outbox.tally import TALLY

logger = logging.getLogger(__name__)

# Larger: older values. Smaller: more reads, when several scrapers ask.
CACHE_SECONDS = 3.0
# A scraper waits no longer for another's read: then the database hangs.
_WAIT_SECONDS = 2.0
# More labels than a person can read cost memory in Prometheus for nothing.
_MOST_LABELS = 50
_NEWEST_DEAD = 1000
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
        now = database_now()
        return [
            _database_up(True),
            *_depth(now),
            *_blocked(),
            _dead(),
            *_workers(list(Worker.objects.order_by("-heartbeat_at")[:_MOST_LABELS]), now),
        ]
    except (DatabaseError, InterfaceError) as error:
        logger.info("Metrics cannot be read from the database", extra={"error": type(error).__name__})
        return [_database_up(False)]
    finally:
        # the thread that asked ends, and its connection would stay
        if not connection.in_atomic_block:
            connection.close()


def _depth(now: datetime) -> Iterator[Metric]:
    depth = depth_and_lag(now=now)
    yield GaugeMetricFamily(
        "outbox_lag_seconds",
        "Age of the oldest event that a relay may publish now; blocked ones and those that wait for a retry left out.",
        value=_oldest_ready_seconds(now),
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
    yield _rows(depth)


def _oldest_ready_seconds(now: datetime) -> float:
    # One entry a shard: MariaDB skips from shard to shard in the index instead of reading all that is ready.
    ready = OutboxMessage.objects.filter(ready_shard__isnull=False).order_by()
    first = [pk for _, pk in ready.values_list("ready_shard").annotate(first=Min("id"))]
    written_at = OutboxMessage.objects.filter(id__in=first).aggregate(oldest=Min("created_at"))["oldest"]
    return max(0.0, (now - written_at).total_seconds()) if written_at else 0.0


def _rows(depth: OutboxDepth) -> Metric:
    text = f"Events by state, each counted up to {COUNT_CAP}; a value of {COUNT_CAP} means at least that many."
    family = GaugeMetricFamily("outbox_rows", text, labels=["state"])
    ready = OutboxMessage.objects.filter(ready_shard__isnull=False).order_by()
    held = OutboxMessage.objects.filter(
        message_key__in=KeyHold.objects.values("message_key"),
        status=Status.PENDING,
        ready_shard__isnull=True,
        next_retry_at__isnull=True,
    ).order_by()
    counts = {
        "pending": depth.pending.value,
        "ready": ready.values("id")[:COUNT_CAP].count(),
        "waiting": depth.retrying.value,
        "held": held.values("id")[:COUNT_CAP].count(),
        "published": depth.published.value,
        "dead": depth.dead.value,
    }
    for state, count in counts.items():
        family.add_metric([state], count)
    return family


def _blocked() -> Iterator[Metric]:
    keys = KeyHold.objects.order_by().values("message_key")[:COUNT_CAP].count()
    yield GaugeMetricFamily("outbox_blocked_keys", "Keys with events that wait behind one that blocks.", value=keys)
    paused = GaugeMetricFamily(
        "outbox_paused_since", "When an event type was paused, as a time.", labels=["event_type"]
    )
    for event_type, since in PausedType.objects.order_by("pk").values_list("event_type", "paused_at")[:_MOST_LABELS]:
        paused.add_metric([event_type], since.timestamp())
    yield paused


def _dead() -> Metric:
    newest = (
        OutboxMessage.objects.filter(status=Status.DEAD).order_by("-id").annotate(error=Substr("last_error", 1, 60))
    )
    rows = newest.values_list("biz_type", "discarded_at", "error")[:_NEWEST_DEAD]
    found = Counter((event_type, _reason(error)) for event_type, discarded_at, error in rows if discarded_at is None)
    family = GaugeMetricFamily(
        "outbox_dead_letters",
        f"Dead letters that wait for a decision, among the newest {_NEWEST_DEAD}.",
        labels=["event_type", "reason"],
    )
    for labels, count in found.most_common(_MOST_LABELS):
        family.add_metric(labels, count)
    return family


def _reason(error: str | None) -> str:
    """Return the kind of an error, never its message: that would make a label of every value in it."""
    kind = (error or "").partition(":")[0]
    return kind if _REASON.fullmatch(kind) else "other"


def _workers(workers: Sequence[Worker], now: datetime) -> Iterator[Metric]:
    age = GaugeMetricFamily(
        "outbox_heartbeat_age_seconds", "How long ago a worker was heard of.", labels=["kind", "worker"]
    )
    live = GaugeMetricFamily("outbox_live_workers", "Workers whose lease runs.", labels=["kind"])
    for worker in workers:
        if worker.owner or worker.kind != Worker.Kind.RELAY:  # a slot that was given back is nobody's silence
            age.add_metric([worker.kind, worker.name], max(0.0, (now - worker.heartbeat_at).total_seconds()))
    living = [worker for worker in workers if worker.lease_until > now]
    for kind in Worker.Kind.values:
        live.add_metric([kind], sum(worker.kind == kind for worker in living))
    relays = [worker for worker in living if worker.kind == Worker.Kind.RELAY]
    yield from (age, live, _breakers(relays), _uncovered_shards(relays))
    yield _lag([worker.state for worker in living if worker.kind == Worker.Kind.CONSUMER])


def _breakers(relays: Iterable[Worker]) -> Metric:
    family = GaugeMetricFamily(
        "outbox_breaker_open", "Whether a relay claims nothing, because the broker is away.", labels=["worker"]
    )
    for relay in relays:
        family.add_metric([relay.name], int(relay.state.get("breaker") == "open"))
    return family


def _uncovered_shards(relays: Iterable[Worker]) -> Metric:
    covered: set[int] = set()
    for relay in relays:
        # a relay that has just begun has not said yet which shards it takes
        first, last = relay.state.get("shards") or (0, SHARDS - 1)
        covered.update(range(first, last + 1))
    return GaugeMetricFamily(
        "outbox_uncovered_shards", "Shards that no live relay takes care of.", value=SHARDS - len(covered)
    )


def _lag(states: Iterable[dict[str, Any]]) -> Metric:
    family = GaugeMetricFamily(
        "outbox_consumer_lag_messages",
        "Messages of a partition that its consumer has not read.",
        labels=["topic", "partition"],
    )
    lags: dict[tuple[str, str], int] = {}
    for state in states:
        for place in state.get("partitions", ()):
            name = str(place["topic"]), str(place["partition"])
            lags[name] = max(place["lag"], lags.get(name, 0))
    for name, lag in sorted(lags.items()):
        family.add_metric(name, lag)
    return family


REGISTRY.register(OutboxCollector())
