"""The events of one run inside this process: written by whoever knows them first, read by any number of tails.

Every event is encoded once and shared. Single-threaded: everything here happens on the event loop.
"""

import asyncio
from bisect import bisect_left
from collections.abc import Callable
from typing import Any

from chat.contracts import RunSnapshot
from chat.runs.document import Document, Piece, pieces_after, units_in
from chat.runs.wire import ChunkEncoder, RunEnd
from smartflow.kernel.sse import encode_event

DONE = "[DONE]"
# Encoded events kept for the readers that keep up; who is further behind gets the same text in fewer events.
FRAMES_KEPT = 256
# What one reader is given at once. Larger: fewer calls for one that catches up, and more memory for one that is slow.
MOST_BYTES_AT_ONCE = 64 * 1024
_NOTHING_JOINED = (-1, b"", -1)


class RunLog:
    """A document that grows, how much of it may be shown, and a way to wait for more."""

    __slots__ = (
        "__weakref__",
        "_changed",
        "_chunks",
        "_document",
        "_frames",
        "_gate",
        "_joined",
        "_last_frames",
        "attempt",
        "end_of_run",
        "is_owned",
        "run_id",
        "shown",
        "user_id",
    )

    def __init__(
        self,
        *,
        run_id: str,
        attempt: int,
        model: str,
        created: int,
        user_id: int = 0,
    ) -> None:
        self.run_id = run_id
        self.attempt = attempt
        self.user_id = user_id
        self.end_of_run: RunEnd | None = None
        self.is_owned = False
        self.shown = 0
        self._gate: Callable[[RunLog], None] | None = None
        self._chunks = ChunkEncoder(run_id=run_id, model=model, created=created)
        self._document = Document()
        self._frames: list[bytes] = []
        self._joined = _NOTHING_JOINED
        self._last_frames: dict[str, bytes] = {}
        self._changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @classmethod
    def of(cls, snapshot: RunSnapshot) -> "RunLog":
        """Return a log that holds what the database does."""
        log = cls(
            run_id=snapshot.run_id,
            attempt=snapshot.attempt,
            model=snapshot.model,
            created=int(snapshot.created_at.timestamp()),
            user_id=snapshot.user_id,
        )
        log.catch_up(snapshot)
        return log

    @property
    def text(self) -> str:
        """All characters so far, shown or not."""
        return self._document.text

    @property
    def events(self) -> list[dict[str, Any]]:
        """All structured events so far, as they are stored."""
        return self._document.events

    @property
    def units(self) -> int:
        """The position at the end, shown or not."""
        return self._document.units

    def own(self, *, attempt: int, gate: "Callable[[RunLog], None] | None") -> None:
        """Begin to write it here; a gate is told of each piece and shows it when it may be seen."""
        self.is_owned, self._gate = True, gate
        if self.units or self.attempt != attempt:
            self.restart(attempt)

    def disown(self) -> None:
        """Stop writing it here: what was said is shown, and more of it may come from elsewhere."""
        self.is_owned, self._gate = False, None
        self.show(self.units)

    def restart(self, attempt: int) -> None:
        """Begin again at nothing; readers are given a snapshot of what there is then."""
        self.attempt, self.shown = attempt, 0
        self._document = Document()
        self._frames.clear()
        self._joined = _NOTHING_JOINED
        self.wake()

    def say(self, text: str) -> None:
        """Add a piece of the answer."""
        self._add(text)

    def note(self, data: dict[str, Any]) -> None:
        """Add a structured event: what goes into a chunk's `extra`."""
        self._add(data)

    def take(self, piece: Piece, *, attempt: int, end: int) -> bool:
        """Add what a piece from elsewhere adds, if anything; False when something before it is missing."""
        if self.is_owned or self.end_of_run is not None or attempt < self.attempt:
            return True
        if attempt > self.attempt:
            if Document().rest_of(piece, end=end) is None:
                return False
            self.restart(attempt)
        rest = self._document.rest_of(piece, end=end)
        if rest:
            self._add(rest)
        return rest is not None

    def catch_up(self, snapshot: RunSnapshot) -> None:
        """
        Add what the database knows more of, and its end.

        A run that has ended is what the database says, even when more was shown: its executor died with the rest.
        """
        if self.is_owned or self.end_of_run is not None or snapshot.attempt < self.attempt:
            return
        end = RunEnd.of(snapshot)
        kept = units_in(text=snapshot.text, events=snapshot.events)
        if snapshot.attempt > self.attempt or (end is not None and kept < self.units):
            self.restart(snapshot.attempt)
        for piece in pieces_after(text=snapshot.text, events=snapshot.events, units=self.units):
            self._add(piece)
        if end is not None:
            self.finish(end)

    def finish(self, end: RunEnd) -> None:
        """Say how the run ended, show all there is and let tails end. Twice: no effect."""
        if self.end_of_run is None:
            self.end_of_run = end
            self.show(self.units)
            if self._gate is not None:
                self._gate(self)
            self.wake()

    def show(self, units: int) -> None:
        """Let readers see what was said up to a position."""
        if units > self.shown:
            self.shown = units
            self._joined = _NOTHING_JOINED
            self.wake()

    def pieces_after(self, units: int) -> list[tuple[Piece, int]]:
        """Return what was said behind a position, shown or not, each piece with the position behind it."""
        return list(self._document.between(units, self.units))

    def frames_after(self, units: int) -> tuple[bytes, int]:
        """
        Return encoded events behind a position, oldest first and as many as go at once, and the position behind them.

        Readers at the same position get the same bytes.
        """
        if units >= self.shown:
            return b"", units
        if self._joined[0] != units:
            self._joined = (units, *self._join(units))
        return self._joined[1:]

    def whole(self) -> bytes:
        """Return one event that replaces all a reader may have seen by what may be shown."""
        shown = Document()
        for piece, _end in self._document.between(0, self.shown):
            shown.add(piece)
        data = self._chunks.snapshot(shown.text, shown.events)
        return encode_event(data, event_id=f"{self.attempt}-{self.shown}")

    def last_frames(self, *, language: str) -> bytes:
        """Return the end mark, the one and only, and before it how the run ended."""
        if language not in self._last_frames:
            assert self.end_of_run is not None
            told = self.end_of_run.encode(self._chunks, language)
            self._last_frames[language] = encode_event(told, event_id=f"{self.attempt}-{self.units + 1}") + self._done()
        return self._last_frames[language]

    def frames_behind_end(self, *, attempt: int, units: int) -> bytes:
        """Return the end mark for a reader that has seen how the run ended; nothing for any other."""
        is_behind = self.end_of_run is not None and attempt == self.attempt and 1 <= units - self.units <= 2
        return self._done() if is_behind else b""

    def _done(self) -> bytes:
        return encode_event(DONE, event_id=f"{self.attempt}-{self.units + 2}")

    def changed(self) -> asyncio.Future[None]:
        """Return a future that is done at the next change. It is shared: whoever awaits it cancels it for all."""
        if self._changed.done():
            self._changed = asyncio.get_running_loop().create_future()
        return self._changed

    def wake(self) -> None:
        """Let every reader look, though nothing may have changed."""
        if not self._changed.done():
            self._changed.set_result(None)

    def _add(self, piece: Piece) -> None:
        if self.end_of_run is not None:
            raise RuntimeError("the run's log is closed")
        start = self.units
        self._document.add(piece)
        if self.units == start:
            return
        self._frames.append(self._encode(piece, is_first=start == 0, end=self.units))
        if len(self._frames) >= 2 * FRAMES_KEPT:
            del self._frames[:-FRAMES_KEPT]
            self._document.fold(keep=FRAMES_KEPT)
        if self._gate is None:
            self.show(self.units)
        else:
            self._gate(self)

    def _join(self, units: int) -> tuple[bytes, int]:
        ends = self._document.ends
        encoded = len(ends) - len(self._frames)
        frames, size = [], 0
        start = units
        for piece, end in self._document.between(units, self.shown):
            index = bisect_left(ends, end)
            is_whole = index >= encoded and ends[index] == end and start == (ends[index - 1] if index else 0)
            frame = self._frames[index - encoded] if is_whole else self._encode(piece, is_first=start == 0, end=end)
            frames.append(frame)
            size, start = size + len(frame), end
            if size >= MOST_BYTES_AT_ONCE:
                break
        return b"".join(frames), start

    def _encode(self, piece: Piece, *, is_first: bool, end: int) -> bytes:
        event_id = f"{self.attempt}-{end}"
        if isinstance(piece, str):
            return encode_event(self._chunks.text(piece, is_first=is_first), event_id=event_id)
        return encode_event(self._chunks.event(piece), event_id=event_id)
