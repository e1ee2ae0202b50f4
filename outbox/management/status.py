"""What `manage.py outbox status` tells: what is wrong, and the overview page's figures, in JSON or for people."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from outbox.queries import Overview, is_well, list_troubles
from outbox.tally import NAMES
from smartflow.kernel.counts import BoundedCount
from smartflow.kernel.durations import compact_duration

_DEPTHS = ("pending", "ready", "in_flight", "waiting", "held", "blocked_keys", "published", "dead")
_AGES = ("oldest_pending_seconds", "oldest_ready_seconds", "oldest_published_seconds")


def as_json(look: Overview) -> dict[str, Any]:
    """Return the overview in the types json.dumps takes; moments are ISO 8601 through `default=str`."""
    return {
        "at": look.at.isoformat(),
        "is_well": is_well(troubles=list_troubles(look=look)),
        "troubles": [
            {"name": trouble.name, "severity": trouble.severity, "text": str(trouble.text)}
            for trouble in list_troubles(look=look)
        ],
        "counts": {name: _count(getattr(look.depth, name)) for name in _DEPTHS},
        "ages": {name: getattr(look.depth, name) for name in _AGES},
        "per_second": {name: round(look.rate(name), 3) for name in NAMES},
        "last_hour": {name: look.hour_total(name) for name in NAMES},
        "blocked": [asdict(key) | {"behind": _count(key.behind)} for key in look.blocked],
        "dead": [asdict(group) for group in look.dead],
        "workers": [asdict(worker) for worker in look.workers],
        "partitions": [asdict(partition) for partition in look.partitions],
        "paused": [asdict(pause) for pause in look.paused],
        "actions": [asdict(action) for action in look.actions],
    }


def _count(count: BoundedCount) -> dict[str, Any]:
    return {"count": count.value, "is_capped": count.is_capped}


def as_lines(look: Overview) -> Iterator[str]:
    """Return the same for people, a line each; the worst that is wrong first."""
    depth, troubles = look.depth, list_troubles(look=look)
    if is_well(troubles=troubles):
        yield "All is well."
    for trouble in troubles:
        yield f"{trouble.severity:<13} {trouble.text}"
    yield f"pending       {depth.pending}{_oldest(depth.oldest_pending_seconds)}"
    yield f"              {depth.ready} ready, {depth.in_flight} in flight, {depth.waiting} waiting, {depth.held} held"
    yield f"published     {depth.published}, not yet consumed{_oldest(depth.oldest_published_seconds)}"
    yield f"dead          {depth.dead}, waiting for a decision"
    for group in look.dead:
        yield f"              {group.count:,} {group.event_type}: {group.reason}"
    yield f"blocked keys  {depth.blocked_keys}"
    for key in look.blocked:
        yield f"              {key.key}: {key.behind} behind #{key.head_id} {key.head_type} {key.head_status}"
    yield "a second      " + ", ".join(f"{look.rate(name):.1f} {name}" for name in NAMES)
    for pause in look.paused:
        yield f"paused        {pause.event_type} by {pause.by}: {pause.reason}"
    yield from _workers(look)
    for action in look.actions:
        done = f"{action.done:,} of {action.expected:,}"
        yield f"action #{action.id:<5} {action.verb} {action.state}: {done} by {action.by}"


def _workers(look: Overview) -> Iterator[str]:
    for worker in look.workers:
        heard = f"heard of {compact_duration(worker.heartbeat_seconds)} ago"
        away = ", the broker is away" if worker.is_breaker_open else ""
        yield f"{worker.kind:<13} {worker.name} {'works' if worker.is_live else 'is gone'}, {heard}{away}"
    for lag in look.partitions:
        yield f"partition     {lag.topic}/{lag.partition} {lag.lag:,} behind"


def _oldest(seconds: float | None) -> str:
    return "" if seconds is None else f", the oldest for {compact_duration(seconds)}"
