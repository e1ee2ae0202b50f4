"""What a run has said: text, and structured events among it. Pure.

A position counts the units before it: each character of text is one, each structured event is one. The document in an
executor's memory, in Redis and in the database is the same, so a position means the same in all of them.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
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


class Document:
    """Pieces in order, growing at the end. `events` are the structured ones, as they are stored."""

    __slots__ = ("_characters", "ends", "events", "pieces")

    def __init__(self, *, text: str = "", events: Sequence[Mapping[str, Any]] = ()) -> None:
        self.pieces: list[Piece] = []
        self.ends: list[int] = []
        self.events: list[dict[str, Any]] = []
        self._characters = 0
        for piece in pieces_after(text=text, events=events, units=0):
            self.add(piece)

    @property
    def text(self) -> str:
        """All its characters."""
        return "".join(piece for piece in self.pieces if isinstance(piece, str))

    @property
    def units(self) -> int:
        """The position at its end."""
        return self.ends[-1] if self.ends else 0

    def add(self, piece: Piece) -> None:
        """Add a piece at the end; an empty text is none."""
        if isinstance(piece, str):
            if not piece:
                return
            self._characters += len(piece)
        else:
            self.events.append({"at": self._characters, "data": piece})
        self.pieces.append(piece)
        self.ends.append(self.units + units_of(piece))

    def rest_of(self, piece: Piece, *, end: int) -> Piece | None:
        """
        Return what a piece that ends at `end` adds to the document, "" when that is nothing.

        None when something is missing between the document's end and the piece's beginning.
        """
        start = end - units_of(piece)
        if start > self.units:
            return None
        if end <= self.units:
            return ""
        return piece[self.units - start :] if isinstance(piece, str) else piece

    def between(self, start: int, end: int) -> Iterator[tuple[Piece, int]]:
        """Yield the pieces from one position to another, each with the position behind it."""
        for index in range(bisect_right(self.ends, start), len(self.ends)):
            first = self.ends[index - 1] if index else 0
            if max(first, start) >= end:
                return
            piece, last = self.pieces[index], min(end, self.ends[index])
            if isinstance(piece, str):
                piece = piece[max(0, start - first) : last - first]
            yield piece, last

    def fold(self, *, keep: int) -> None:
        """Join the neighbours among the pieces before the last `keep`: a long text of many pieces costs much memory."""
        old = len(self.pieces) - keep
        if old <= 0:
            return
        folded: list[Piece] = []
        for is_text, group in groupby(self.pieces[:old], key=_is_text):
            same: list[Any] = list(group)
            folded.extend(["".join(same)] if is_text else same)
        ends = []
        units = 0
        for piece in folded:
            units += units_of(piece)
            ends.append(units)
        self.pieces[:old], self.ends[:old] = folded, ends


def _is_text(piece: Piece) -> bool:
    return isinstance(piece, str)


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
