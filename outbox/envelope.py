"""The wire format of an event, both directions. Pure: no Django, no Kafka.

Stored in the row:  {event_id, event_type, event_version, aggregate_id, payload}
Sent to the topic:  the same and outbox_id, by which dispatch finds the row it must lock.
"""

import json
from dataclasses import dataclass
from typing import Any

import orjson

from smartflow.events.base import Event

_FIELDS: dict[str, type] = {
    "event_id": str,
    "event_type": str,
    "event_version": int,
    "aggregate_id": str,
    "payload": dict,
}


class EnvelopeUnreadable(ValueError):
    """The text is no envelope: no retry can mend it."""


@dataclass(frozen=True, kw_only=True)
class Envelope:
    """An event with what identifies it."""

    event_id: str
    event_type: str
    event_version: int
    aggregate_id: str
    payload: dict[str, Any]


def encode_stored(*, event: Event, event_id: str, aggregate_id: str) -> str:
    """Return the JSON text that append writes into the row."""
    return json.dumps(
        {
            "event_id": event_id,
            "event_type": event.event_type,
            "event_version": event.event_version,
            "aggregate_id": aggregate_id,
            "payload": event.to_payload(),
        },
        ensure_ascii=False,
        separators=(",", ":"),
        # the writer hears of a NaN; later nobody could read it
        allow_nan=False,
    )


def encode_wire(*, outbox_id: int, event_id: str, stored: str) -> bytes:
    """
    Return the bytes to publish for a row: its stored JSON with `outbox_id` in front.

    Raises: EnvelopeUnreadable when the row's JSON is damaged or speaks of another row: dispatch would never find the
            row it belongs to, so it would be published for ever and hold back its key.
    """
    body = _object(stored)
    if "outbox_id" in body:
        raise EnvelopeUnreadable("outbox_id is no field of a stored envelope")
    _check_fields(body)
    if body["event_id"] != event_id:
        raise EnvelopeUnreadable("event_id is not the row's")
    return f'{{"outbox_id":{outbox_id},{stored.lstrip()[1:]}'.encode()


def decode_stored(text: str) -> Envelope:
    """Read the JSON of a row. Raises: EnvelopeUnreadable, naming what is wrong and never a value."""
    return _envelope(_object(text))


def decode_wire(value: bytes) -> tuple[int, Envelope]:
    """Read a message's bytes into (outbox_id, envelope). Raises: EnvelopeUnreadable."""
    body = _object(value)
    outbox_id = body.get("outbox_id")
    if not isinstance(outbox_id, int) or isinstance(outbox_id, bool):
        raise EnvelopeUnreadable("outbox_id is missing or no number")
    return outbox_id, _envelope(body)


def _object(text: str | bytes) -> dict[str, Any]:
    try:
        body = orjson.loads(text)
    except ValueError as error:
        raise EnvelopeUnreadable("the envelope is not JSON") from error
    if not isinstance(body, dict):
        raise EnvelopeUnreadable("the envelope is not an object")
    return body


def _check_fields(body: dict[str, Any]) -> None:
    for name, kind in _FIELDS.items():
        if type(body.get(name)) is not kind:  # a bool is an int to isinstance
            raise EnvelopeUnreadable(f"{name} is missing or of the wrong type")


def _envelope(body: dict[str, Any]) -> Envelope:
    _check_fields(body)
    return Envelope(**{name: body[name] for name in _FIELDS})
