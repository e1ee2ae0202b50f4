"""The events of one run inside this process: written by whoever knows them first, read by any number of tails.

Every event is encoded once and shared. Single-threaded: everything here happens on the event loop.
"""

import asyncio
from bisect import bisect_right
from typing import Any

from chat.contracts import RunSnapshot
from chat.runs.document import Piece, pieces_after, units_of
from chat.runs.wire import ChunkEncoder, RunEnd
from smartflow.kernel.sse import encode_event

DONE = "[DONE]"


class RunLog:
    """A document that only grows, and a way to wait for its growth."""

    def __init__(self, *, run_id: str, attempt: int, model: str, created: int) -> None:
        self.run_id = run_id
        self.attempt = attempt
        self.end_of_run: RunEnd | None = None
        self.events: list[dict[str, Any]] = []
        self._chunks = ChunkEncoder(run_id=run_id, model=model, created=created)
        self._text: list[str] = []
        self._characters = 0
        self._pieces: list[Piece] = []
        self._ends: list[int] = []
        self._frames: list[bytes] = []
        self._changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @classmethod
    def of(cls, snapshot: RunSnapshot) -> "RunLog":
        """Return a log that holds what the database does."""
        log = cls(
            run_id=snapshot.run_id,
            attempt=snapshot.attempt,
            model=snapshot.model,
            created=int(snapshot.created_at.timestamp()),
        )
        log.catch_up(snapshot)
        return log

    @property
    def text(self) -> str:
        """All characters so far."""
        return "".join(self._text)

    @property
    def units(self) -> int:
        """The position at the end."""
        return self._ends[-1] if self._ends else 0

    def say(self, text: str) -> None:
        """Add a piece of the answer."""
        self._text.append(text)
        self._characters += len(text)
        self._add(text)

    def note(self, data: dict[str, Any]) -> None:
        """Add a structured event: what goes into a chunk's `extra`."""
        self.events.append({"at": self._characters, "data": data})
        self._add(data)

    def catch_up(self, snapshot: RunSnapshot) -> None:
        """Add what the database knows more of, and its end. A snapshot of another attempt is no continuation."""
        if snapshot.attempt != self.attempt or self.end_of_run is not None:
            return
        for piece in pieces_after(text=snapshot.text, events=snapshot.events, units=self.units):
            if isinstance(piece, str):
                self.say(piece)
            else:
                self.note(piece)
        end = RunEnd.of(snapshot)
        if end is not None:
            self.finish(end)

    def finish(self, end: RunEnd) -> None:
        """Say how the run ended and let tails end. Twice: no effect."""
        if self.end_of_run is None:
            self.end_of_run = end
            self._wake()

    def frames_after(self, units: int) -> tuple[bytes, int]:
        """Return the encoded events behind a position, oldest first, and the position behind them."""
        first = bisect_right(self._ends, units)
        if first == len(self._ends):
            return b"", units
        start = self._ends[first - 1] if first else 0
        if start == units:
            return b"".join(self._frames[first:]), self.units
        # a reader who was cut off within a piece that has been merged since
        piece = self._pieces[first]
        assert isinstance(piece, str)
        rest = self._encode(piece[units - start :], start=units, end=self._ends[first])
        return b"".join([rest, *self._frames[first + 1 :]]), self.units

    def whole(self) -> bytes:
        """Return one event that replaces all a reader may have seen by what there is."""
        data = self._chunks.snapshot(self.text, self.events)
        return encode_event(data, event_id=f"{self.attempt}-{self.units}")

    def last_frames(self, *, language: str) -> bytes:
        """Return the end mark, the one and only, and before it how the run ended."""
        assert self.end_of_run is not None
        told = self.end_of_run.encode(self._chunks, language)
        end_mark = encode_event(DONE, event_id=f"{self.attempt}-{self.units + 2}")
        return encode_event(told, event_id=f"{self.attempt}-{self.units + 1}") + end_mark

    def changed(self) -> asyncio.Future[None]:
        """Return a future that is done at the next change; shared, so never cancel it."""
        return self._changed

    def _add(self, piece: Piece) -> None:
        if self.end_of_run is not None:
            raise RuntimeError("the run's log is closed")
        start = self.units
        end = start + units_of(piece)
        self._pieces.append(piece)
        self._ends.append(end)
        self._frames.append(self._encode(piece, start=start, end=end))
        self._wake()

    def _encode(self, piece: Piece, *, start: int, end: int) -> bytes:
        event_id = f"{self.attempt}-{end}"
        if isinstance(piece, str):
            return encode_event(self._chunks.text(piece, is_first=start == 0), event_id=event_id)
        return encode_event(self._chunks.event(piece), event_id=event_id)

    def _wake(self) -> None:
        woken, self._changed = self._changed, asyncio.get_running_loop().create_future()
        woken.set_result(None)
