"""What a run has said: text, and structured events among it. Pure.

A position counts the units before it: each character of text is one, each structured event is one. The document in an
executor's memory, in Redis and in the database is the same, so a position means the same in all of them.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Piece = str | dict[str, Any]


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a run's output; of another attempt, it names a place in a text that was given up."""

    attempt: int
    units: int

    def __str__(self) -> str:
        return f"{self.attempt}-{self.units}"

    @classmethod
    def parse(cls, text: str) -> "Position | None":
        """Read an event's id back; None when it is none."""
        attempt, dash, units = text.strip().partition("-")
        if not (dash and attempt.isascii() and attempt.isdigit() and units.isascii() and units.isdigit()):
            return None
        if len(attempt) > 6 or len(units) > 12:
            return None
        return cls(int(attempt), int(units))


def units_of(piece: Piece) -> int:
    """Return how many units a piece takes."""
    return len(piece) if isinstance(piece, str) else 1


def pieces_after(*, text: str, events: Sequence[Mapping[str, Any]], units: int) -> Iterator[Piece]:
    """
    Yield what a document holds behind `units`, in order.

    Shape: `events` as stored, each {"at": characters of text before it, "data": …}, in order.
    """
    passed = start = 0
    for event in events:
        at = int(event["at"])
        yield from _rest_of_text(text[start:at], units - passed)
        passed += at - start
        if passed >= units:
            yield dict(event["data"])
        passed, start = passed + 1, at
    yield from _rest_of_text(text[start:], units - passed)


def _rest_of_text(text: str, skip: int) -> Iterator[str]:
    rest = text[max(0, skip) :]
    if rest:
        yield rest


def units_in(*, text: str, events: Iterable[object]) -> int:
    """Return the position at a document's end."""
    return len(text) + sum(1 for _ in events)
