"""What an overview says in words: whether all is well, else what is wrong and where to look. Pure.

The order is the order in which an operator should act: what stops everything first, then what is late, then what was
decided on purpose.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from outbox.models import Worker
from outbox.queries.console import Overview
from smartflow.kernel.durations import compact_duration

# An event is normally published within a second: half a minute means that no relay keeps up.
LATE_SECONDS = 30
# A batch is normally handled within a second: a minute means that a handler hangs.
BUSY_SECONDS = 60


class Severity(StrEnum):
    """How bad it is."""

    BAD = "bad"
    LATE = "late"
    NOTED = "noted"


class Place(StrEnum):
    """Where an operator looks next."""

    READY = "ready"
    PUBLISHED = "published"
    DEAD = "dead"
    BLOCKED = "blocked"
    EVENT_TYPES = "event_types"
    RELAYS = "relays"
    CONSUMERS = "consumers"
    HOUR = "hour"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is not as it should be."""

    name: str
    severity: Severity
    text: Any
    place: Place


def list_troubles(*, look: Overview) -> list[Finding]:
    """Return what is wrong, the worst first; nothing when all is well."""
    order = list(Severity)
    return sorted(
        [*_workers(look), *_decisions(look), *_lateness(look)], key=lambda finding: order.index(finding.severity)
    )


def is_well(*, troubles: Sequence[Finding]) -> bool:
    """Tell whether nothing of it needs anybody: what was decided on purpose is only noted."""
    return all(trouble.severity == Severity.NOTED for trouble in troubles)


def _workers(look: Overview) -> Iterator[Finding]:
    relays = [worker for worker in look.workers_of(Worker.Kind.RELAY) if worker.is_live]
    consumers = [worker for worker in look.workers_of(Worker.Kind.CONSUMER) if worker.is_live]
    if not relays:
        yield _bad("no_relay", _("No relay is at work: nothing is published."), Place.RELAYS)
    slots = max((int(relay.state.get("slots") or 1) for relay in relays), default=0)
    if len(relays) < slots:
        parts = {"live": len(relays), "slots": slots}
        text = _("Only %(live)s of %(slots)s relays are at work: events of the other keys wait.") % parts
        yield _bad("relay_missing", text, Place.RELAYS)
    if any(relay.is_breaker_open for relay in relays):
        away = _("The broker does not answer: relays wait for it, and nothing is lost.")
        yield _bad("broker_away", away, Place.RELAYS)
    if not consumers:
        yield _bad("no_consumer", _("No consumer is at work: nothing is handled."), Place.CONSUMERS)
    for consumer in consumers:
        if consumer.busy_seconds > BUSY_SECONDS:
            who = {"name": consumer.name, "time": compact_duration(consumer.busy_seconds)}
            yield _late("busy", _("%(name)s has had the same batch for %(time)s.") % who, Place.CONSUMERS)


def _decisions(look: Overview) -> Iterator[Finding]:
    broken, dead = look.hour_total("violations"), look.depth.dead
    if broken:
        text = ngettext(
            "In the last hour %(count)s event was published after a later one of its key.",
            "In the last hour %(count)s events were published after a later one of their key.",
            broken,
        )
        yield _bad("order_broken", text % {"count": f"{broken:,}"}, Place.HOUR)
    if dead.value:
        text = ngettext(
            "%(count)s dead letter waits for a decision.", "%(count)s dead letters wait for a decision.", dead.value
        )
        yield _bad("dead", text % {"count": dead}, Place.DEAD)
    if look.paused:
        types = ", ".join(pause.event_type for pause in look.paused)
        paused = _("Paused by an operator: %(types)s.") % {"types": types}
        yield Finding(name="paused", severity=Severity.NOTED, text=paused, place=Place.EVENT_TYPES)


def _lateness(look: Overview) -> Iterator[Finding]:
    depth = look.depth
    if look.blocked:
        longest = (look.at - min(key.since for key in look.blocked)).total_seconds()
        text = ngettext(
            "%(count)s key is blocked, for %(time)s: its events wait.",
            "%(count)s keys are blocked, the longest for %(time)s: their events wait.",
            depth.blocked_keys.value,
        )
        yield _late("blocked", text % {"count": depth.blocked_keys, "time": compact_duration(longest)}, Place.BLOCKED)
    ready, published = depth.oldest_ready_seconds or 0, depth.oldest_published_seconds or 0
    if ready > LATE_SECONDS:
        parts = {"time": compact_duration(ready)}
        late = _("Publishing is late: the oldest ready event was written %(time)s ago.") % parts
        yield _late("publishing_late", late, Place.READY)
    if published > LATE_SECONDS:
        parts = {"time": compact_duration(published)}
        late = _("Handling is late: the oldest event to be handled was published %(time)s ago.") % parts
        yield _late("handling_late", late, Place.PUBLISHED)


def _bad(name: str, text: Any, place: Place) -> Finding:
    return Finding(name=name, severity=Severity.BAD, text=text, place=place)


def _late(name: str, text: Any, place: Place) -> Finding:
    return Finding(name=name, severity=Severity.LATE, text=text, place=place)
