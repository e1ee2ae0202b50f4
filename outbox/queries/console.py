"""Everything an operator looks at first, in eight statements, or nine, whatever the tables hold.

Called by the overview page and by `manage.py outbox status`. Lists are cut, counts are capped: what is left out is
said by a number.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import QuerySet
from django.db.models.functions import Left

from outbox.models import KeyHold, MinuteCount, OperatorAction, OutboxMessage, PausedType, Status, Worker
from outbox.queries.depth import CountOf, OutboxDepth, depth_and_lag
from outbox.tally import NAMES
from outbox.walk import open_dead_letters, rows_of_status
from outbox.workers import GONE_SECONDS
from smartflow.kernel.counts import BoundedCount

HOUR_MINUTES = 60
# Blocked keys that are looked at to find the ones blocked longest; and how many are shown, with the rows behind each.
HOLDS_SEEN, HOLDS_SHOWN, BEHIND_CAP = 1000, 10, 1000
# Larger: more of a bad day's dead letters are told apart, and slower: each is read from the table.
DEAD_SEEN, DEAD_SHOWN, REASON_LENGTH = 1000, 10, 60
WORKERS_SHOWN, PAUSES_SHOWN, ACTIONS_SHOWN = 100, 50, 10


@dataclass(frozen=True, kw_only=True)
class Minute:
    """What happened in one minute, by the names of tally.NAMES."""

    start: datetime
    counts: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class BlockedKey:
    """
    A key with held rows: what they wait behind, since when, and how many are pending behind it.

    `head_error` is the error's kind: everybody who sees rows sees this.
    """

    key: str
    since: datetime
    head_id: int
    head_type: str
    head_status: str
    head_error: str
    behind: BoundedCount


@dataclass(frozen=True, kw_only=True)
class DeadGroup:
    """Open dead letters of one event type and one kind of error, among DEAD_SEEN."""

    event_type: str
    reason: str
    count: int


@dataclass(frozen=True, kw_only=True)
class WorkerState:
    """A relay's slot or a consumer's process, and what it last said of itself."""

    name: str
    kind: str
    owner: str
    started_at: datetime
    heartbeat_seconds: float
    is_live: bool
    state: Mapping[str, Any]

    @property
    def is_breaker_open(self) -> bool:
        """Tell whether this relay claims nothing, because the broker is away."""
        return self.is_live and self.state.get("breaker") == "open"

    @property
    def busy_seconds(self) -> float:
        """Return how long a consumer has had the batch in hand."""
        return float(self.state.get("busy_seconds") or 0)


@dataclass(frozen=True, kw_only=True)
class PartitionLag:
    """How far a consumer is behind the end of a partition, in messages."""

    topic: str
    partition: int
    position: int
    end: int
    lag: int
    consumer: str


@dataclass(frozen=True, kw_only=True)
class Pause:
    """An event type that relays leave alone."""

    event_type: str
    reason: str
    by: str
    since: datetime


@dataclass(frozen=True, kw_only=True)
class RunningAction:
    """Background work that an operator asked for."""

    id: int
    verb: str
    by: str
    state: str
    done: int
    expected: int


@dataclass(frozen=True, kw_only=True)
class Overview:
    """One look at everything. `minutes`: the last hour, oldest first, without gaps; the last one is not over yet."""

    at: datetime
    depth: OutboxDepth
    minutes: tuple[Minute, ...]
    blocked: tuple[BlockedKey, ...]
    dead: tuple[DeadGroup, ...]
    workers: tuple[WorkerState, ...]
    paused: tuple[Pause, ...]
    actions: tuple[RunningAction, ...]

    def rate(self, name: str) -> float:
        """Return events a second over the last 60 seconds, the minute before this one taken in part."""
        last, current = self.minutes[-2], self.minutes[-1]
        passed = min(60.0, (self.at - current.start).total_seconds())
        return (current.counts[name] + last.counts[name] * (60 - passed) / 60) / 60

    def hour_total(self, name: str) -> int:
        """Return how many of these there were in the last hour."""
        return sum(minute.counts[name] for minute in self.minutes)

    def workers_of(self, kind: str) -> list[WorkerState]:
        """Return the relays or the consumers."""
        return [worker for worker in self.workers if worker.kind == kind]

    @property
    def partitions(self) -> list[PartitionLag]:
        """Every partition of the living consumers, by topic and number."""
        consumers = [worker for worker in self.workers_of(Worker.Kind.CONSUMER) if worker.is_live]
        found = [lag for worker in consumers for lag in _partitions(worker)]
        return sorted(found, key=lambda lag: (lag.topic, lag.partition))


def overview(*, now: datetime) -> Overview:
    """
    Return everything an operator looks at first.

    Units:  `now` is the database's clock, by which workers write their heartbeats.
    Source: eight statements; none counts or reads more than its cap. A ninth where more than DEAD_SEEN dead letters
            are open and the newest dead rows are discarded ones.
    """
    depth = depth_and_lag(now=now)
    return Overview(
        at=now,
        depth=depth,
        minutes=_last_hour(now),
        blocked=_blocked_keys(),
        dead=_dead_groups(depth.dead.value),
        workers=_workers(now),
        paused=_paused(),
        actions=_running_actions(),
    )


def _last_hour(now: datetime) -> tuple[Minute, ...]:
    this = now.replace(second=0, microsecond=0)
    first = this - timedelta(minutes=HOUR_MINUTES)
    found = {count.minute: count for count in MinuteCount.objects.filter(minute__gte=first, minute__lte=this)}
    starts = [first + timedelta(minutes=number) for number in range(HOUR_MINUTES + 1)]
    return tuple(
        Minute(start=start, counts={name: getattr(found.get(start), name, 0) for name in NAMES}) for start in starts
    )


def _blocked_keys() -> tuple[BlockedKey, ...]:
    seen = list(KeyHold.objects.order_by("pk")[:HOLDS_SEEN])
    holds = sorted(seen, key=lambda hold: hold.since)[:HOLDS_SHOWN]
    if not holds:
        return ()
    behind = {
        f"behind_{number}": CountOf(
            OutboxMessage.objects.filter(message_key=hold.pk, status=Status.PENDING, id__gt=hold.head_id).values("id")[
                : BEHIND_CAP + 1
            ]
        )
        for number, hold in enumerate(holds)
    }
    heads = OutboxMessage.objects.filter(id__in=[hold.head_id for hold in holds])
    heads = heads.annotate(error=Left("last_error", REASON_LENGTH), **behind)
    found = {head["id"]: head for head in heads.values("id", "biz_type", "status", "error", *behind)}
    return tuple(
        _blocked_key(hold, found[hold.head_id], f"behind_{number}")
        for number, hold in enumerate(holds)
        # a head that was pruned holds nothing any more; the relay finds that out within a second
        if hold.head_id in found
    )


def _blocked_key(hold: KeyHold, head: Mapping[str, Any], behind: str) -> BlockedKey:
    return BlockedKey(
        key=hold.pk,
        since=hold.since,
        head_id=hold.head_id,
        head_type=head["biz_type"],
        head_status=head["status"],
        head_error=kind_of_error(error=head["error"]),
        behind=BoundedCount.of(head[behind], cap=BEHIND_CAP),
    )


def kind_of_error(*, error: str | None) -> str:
    """
    Return the kind of an error, which is how `last_error` begins: what a filter by error may be given.

    It quotes nothing of the payload, as the words behind it may.
    """
    return (error or "").partition(":")[0].partition("\n")[0][:REASON_LENGTH]


def _dead_groups(open_count: int) -> tuple[DeadGroup, ...]:
    # The index of open ones has them by type: beyond DEAD_SEEN of them, the first type alone would be seen.
    found = _kinds_of(rows_of_status(status=Status.DEAD, is_upwards=False)) if open_count > DEAD_SEEN else None
    found = found or _kinds_of(open_dead_letters())
    return tuple(
        DeadGroup(event_type=event_type, reason=reason, count=count)
        for (event_type, reason), count in found.most_common(DEAD_SHOWN)
    )


def _kinds_of(dead: QuerySet[OutboxMessage]) -> Counter[tuple[str, str]]:
    rows = dead.annotate(reason=Left("last_error", REASON_LENGTH)).values_list("biz_type", "reason", "discarded_at")
    return Counter(
        (event_type, kind_of_error(error=reason)) for event_type, reason, discarded in rows[:DEAD_SEEN] if not discarded
    )


def _workers(now: datetime) -> tuple[WorkerState, ...]:
    newest = Worker.objects.order_by("-heartbeat_at")[:WORKERS_SHOWN]
    return tuple(sorted((_worker(worker, now) for worker in newest), key=lambda worker: (worker.kind, worker.name)))


def _worker(worker: Worker, now: datetime) -> WorkerState:
    return WorkerState(
        name=worker.pk,
        kind=worker.kind,
        owner=worker.owner,
        started_at=worker.started_at,
        heartbeat_seconds=max(0.0, (now - worker.heartbeat_at).total_seconds()),
        # a relay gives its slot back between two passes: it is not gone before it has been silent for a while
        is_live=(now - worker.heartbeat_at).total_seconds() <= GONE_SECONDS,
        state=worker.state,
    )


def _partitions(worker: WorkerState) -> Iterable[PartitionLag]:
    for place in worker.state.get("partitions", ()):
        yield PartitionLag(
            topic=str(place.get("topic", "")),
            partition=int(place.get("partition", 0)),
            position=int(place.get("position") or 0),
            end=int(place.get("end") or 0),
            lag=int(place.get("lag") or 0),
            consumer=worker.name,
        )


def _paused() -> tuple[Pause, ...]:
    return tuple(
        Pause(event_type=pause.pk, reason=pause.reason, by=pause.by, since=pause.paused_at)
        for pause in PausedType.objects.order_by("pk")[:PAUSES_SHOWN]
    )


def _running_actions() -> tuple[RunningAction, ...]:
    State = OperatorAction.State
    running = OperatorAction.objects.filter(state__in=(State.WAITING, State.RUNNING)).order_by("id")
    return tuple(
        RunningAction(
            id=action.pk,
            verb=action.verb,
            by=action.by,
            state=action.state,
            done=action.done_count,
            expected=action.expected_count,
        )
        for action in running.defer("selection")[:ACTIONS_SHOWN]
    )
