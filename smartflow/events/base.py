"""What every event is: a frozen dataclass with a type `domain.resource.action` and a version. Pure Python.

Producers append events (outbox/append.py); consumers get them back decoded (outbox/dispatch.py). A shape that changes
incompatibly gets the next version; samples of every version stand in tests/golden/events/ and are never edited.
"""

from dataclasses import asdict, dataclass, fields
from functools import cache
from types import UnionType
from typing import Any, ClassVar, Self, get_args, get_origin, get_type_hints


class EventUnreadable(ValueError):
    """A payload does not have the event's shape: no retry can mend it."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """A fact or a request that was written with the business rows it belongs to."""

    event_type: ClassVar[str]
    event_version: ClassVar[int]
    # Whether later events of the same key wait behind a dead one. False lets them overtake it: only where each event
    # says everything anew.
    blocks_key_when_dead: ClassVar[bool] = True
    # False for a fact that is written whether or not anybody follows it: without a handler it is consumed unread.
    needs_handler: ClassVar[bool] = True

    def to_payload(self) -> dict[str, Any]:
        """Return the fields as JSON-ready values."""
        return asdict(self)

    @classmethod
    def from_payload(cls, payload: Any) -> Self:
        """
        Build the event from a decoded payload, checking every field's presence and type.

        Unknown fields are ignored, so that an older reader survives a newer writer.
        Raises: EventUnreadable, naming the field and never its value.
        """
        if not isinstance(payload, dict):
            raise EventUnreadable(f"{cls.event_type}: the payload is not an object")
        values: dict[str, Any] = {}
        for name, hint in _shape(cls):  # type: ignore[arg-type]  # mypy takes a dataclass's own class for unhashable
            if name not in payload:
                raise EventUnreadable(f"{cls.event_type}: field {name} is missing")
            value = values[name] = payload[name]
            if type(value) is not hint and not _fits(value, hint):
                raise EventUnreadable(f"{cls.event_type}: field {name} has the wrong type")
        return cls(**values)


@cache
def _shape(event_class: type[Event]) -> tuple[tuple[str, Any], ...]:
    """Return a class's fields with their types; resolving them anew for every event would cost more than the check."""
    hints = get_type_hints(event_class)
    return tuple((field.name, hints[field.name]) for field in fields(event_class))


def _fits(value: Any, hint: Any) -> bool:
    if (origin := get_origin(hint)) is not None and origin is not UnionType:
        return isinstance(value, origin)  # what a list or an object holds is its handler's to judge
    if isinstance(hint, UnionType):
        return any(_fits(value, member) for member in get_args(hint))
    if hint is int:  # bool is a subclass of int, yet never a count or an id
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)
