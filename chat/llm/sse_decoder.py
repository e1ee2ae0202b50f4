"""Server-sent events, decoded from bytes as they arrive. Pure; used by answer_body.py.

Kept apart from the openai package's own decoder, which fails on an event without data (a ping with an id) and grows
without a limit on a body that is no event stream.

Source: WHATWG HTML, "Server-sent events" (9.2.6).
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

# Far above any chunk a provider sends; a body without line ends would otherwise fill the memory.
MAX_EVENT_BYTES = 4 * 1024 * 1024

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_LINE_END = re.compile(rb"\r\n|\n|\r")


class ServerEvent(NamedTuple):
    """One event that carries data; bytes, since a JSON parser wants them."""

    name: str
    data: bytes


class EventTooLong(ValueError):
    """The body is no event stream, or not one that anybody can hold."""


class SseDecoder:
    """Cuts bytes into events. Bytes are cut at line ends only, so no character is ever split."""

    def __init__(self) -> None:
        self.foreign_line_count = 0  # lines that no event stream has: HTML, bare JSON
        self._rest = b""
        self._has_carriage_returns = False
        self._name = ""
        self._data: list[bytes] = []
        self._data_bytes = 0

    def feed(self, received: bytes) -> list[ServerEvent]:
        """Return the events that these bytes complete."""
        if self._has_carriage_returns or b"\r" in received:
            self._has_carriage_returns = True
            return self._feed_lines(received)
        events = []
        *frames, self._rest = (self._rest + received).split(b"\n\n")
        for frame in frames:
            if frame.startswith(b"data: {") and b"\n" not in frame:
                # What all but a few frames look like, so this alone is what a token costs.
                events.append(ServerEvent("", frame[6:]))
            else:
                events += self._take_lines([*frame.split(b"\n"), b""])
        self._check_size()
        return events

    def finish(self) -> list[ServerEvent]:
        """
        Return what the end of the body leaves: some servers leave out the last blank line.

        The event may be half of one all the same, when the body was cut; only who reads its data can tell.
        """
        lines = [*_LINE_END.split(self._rest), b""]
        if b"data".startswith(lines[-2]):
            lines[-2] = b""  # the beginning of a field of ours, and no foreign line
        self._rest = b""
        return self._take_lines(lines)

    def _feed_lines(self, received: bytes) -> list[ServerEvent]:
        lines = _LINE_END.split(self._rest + received)
        self._rest = lines.pop()
        if not self._rest and received.endswith(b"\r"):
            # The line feed of a pair may come with the next bytes, and would then read as one blank line more.
            self._rest = lines.pop() + b"\r"
        self._check_size()
        return self._take_lines(lines)

    def _check_size(self) -> None:
        if len(self._rest) + self._data_bytes > MAX_EVENT_BYTES:
            raise EventTooLong(f"more than {MAX_EVENT_BYTES} bytes without the end of an event")

    def _take_lines(self, lines: Iterable[bytes]) -> list[ServerEvent]:
        return [event for line in lines if (event := self._take(line)) is not None]

    def _take(self, line: bytes) -> ServerEvent | None:
        if not line:
            return self._dispatch()
        field, _, value = line.removeprefix(_BYTE_ORDER_MARK).partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value)
            self._data_bytes += len(value)
        elif field == b"event":
            self._name = value.decode("utf-8", "replace")
        elif field not in {b"", b"id", b"retry"}:
            self.foreign_line_count += 1
        return None

    def _dispatch(self) -> ServerEvent | None:
        name, data = self._name, b"\n".join(self._data)
        self._name, self._data, self._data_bytes = "", [], 0
        return ServerEvent(name, data) if data else None
