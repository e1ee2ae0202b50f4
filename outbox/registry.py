"""Who reacts to what, and where an event type travels: event type → handler, event type → topic."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Protocol, TypeVar

from django.conf import settings

from smartflow.events import CATALOG, EVENT_TYPES, Event, EventUnreadable


@dataclass(frozen=True, slots=True)
class Received:
    """One event as a handler gets it."""

    event: Any
    event_id: str


class Handler(Protocol):
    """A reaction to one event type, run inside the transaction that marks the row consumed."""

    def __call__(self, event: Any, *, event_id: str) -> None:
        """Apply the event. Seen twice: must change nothing the second time. No network, no own commit."""


class BatchHandler(Protocol):
    """The same for many events at once, oldest first; all are applied or, by raising, none."""

    def __call__(self, received: Sequence[Received], /) -> None:
        """Apply the events. Seen twice, also within one batch: must change nothing the second time."""


class UnknownEventType(LookupError):
    """The type is not in the event catalog, or its domain has no topic."""


class HandlerMissing(LookupError):
    """Nothing reacts to the type."""


@dataclass(frozen=True, slots=True)
class _Batch:
    """Marks a handler that takes many events."""

    function: BatchHandler


_handlers: dict[str, Handler | _Batch] = {}
_H = TypeVar("_H", bound=Callable[..., None])


def handles(event_type: str) -> Callable[[_H], _H]:
    """
    Register the function below as the one handler of `event_type`.

    Raises: UnknownEventType for a type outside the catalog; ValueError for a second handler. Both stop the start.
    """
    _check_type(event_type)

    def register(function: _H) -> _H:
        _register(event_type, function)
        return function

    return register


def handles_batch(event_type: str) -> Callable[[_H], _H]:
    """
    Register the function below as the handler of `event_type` that takes many events at once.

    Worth it where one statement can do the work of many. Raises: as `handles`.
    """
    _check_type(event_type)

    def register(function: _H) -> _H:
        _register(event_type, _Batch(function))
        return function

    return register


def _check_type(event_type: str) -> None:
    if event_type not in EVENT_TYPES:
        raise UnknownEventType(f"{event_type!r} is not in smartflow.events.CATALOG")


def _register(event_type: str, handler: Handler | _Batch) -> None:
    known = _handlers.get(event_type)
    if known is not None and known != handler:
        raise ValueError(f"{event_type!r} has a handler already: {known}")
    _handlers[event_type] = handler


def handler_for(event_type: str) -> BatchHandler:
    """Return what applies events of a type, one or many; nothing at all for a fact that nobody follows.

    Raises: HandlerMissing.
    """
    handler = _handlers.get(event_type)
    if handler is None and event_type in optional_types():
        return _leave_unread
    if handler is None:
        raise HandlerMissing(f"nothing handles {event_type!r}")
    if isinstance(handler, _Batch):
        return handler.function
    return partial(_one_by_one, handler)


def _leave_unread(_received: Sequence[Received], /) -> None:
    """Let a fact pass that nobody follows."""


def _one_by_one(handler: Handler, received: Sequence[Received], /) -> None:
    for one in received:
        handler(one.event, event_id=one.event_id)


def decode_event(*, event_type: str, version: int, payload: dict[str, Any]) -> Event:
    """Return the typed event of a payload. Raises: EventUnreadable, also for a version this code does not know."""
    try:
        event_class = CATALOG[event_type, version]
    except KeyError:
        raise EventUnreadable(f"{event_type!r} version {version} is not in the catalog") from None
    return event_class.from_payload(payload)


def topic_for(event_type: str) -> str:
    """
    Return the topic of a type: its domain's, by settings.OUTBOX_TOPICS.

    Raises: UnknownEventType; a silent default would send events where nobody listens.
    """
    _check_type(event_type)
    domain = event_type.split(".", 1)[0]
    try:
        return str(settings.OUTBOX_TOPICS[domain])
    except KeyError:
        raise UnknownEventType(f"OUTBOX_TOPICS has no topic for the domain {domain!r}") from None


def all_topics() -> list[str]:
    """Return every topic there is, sorted."""
    return sorted(set(settings.OUTBOX_TOPICS.values()))


@cache
def blocking_types() -> frozenset[str]:
    """Return every event type whose dead letters hold back the rows behind them in their key."""
    return frozenset(event.event_type for event in CATALOG.values() if event.blocks_key_when_dead)


@cache
def optional_types() -> frozenset[str]:
    """Return every event type that may go without a handler."""
    return frozenset(event.event_type for event in CATALOG.values() if not event.needs_handler)


def handled_types() -> frozenset[str]:
    """Return every event type that has a handler."""
    return frozenset(_handlers)
