"""Server-sent events, decoded from bytes as they arrive. Pure; used by openai_client.py.

Kept apart from the openai package's own decoder, which fails on an event without data (a ping with an id) and grows
without a limit on a body that is no event stream.

Source: WHATWG HTML, "Server-sent events" (9.2.6).
"""

import re
from typing import NamedTuple

# Far above any chunk a provider sends; a body without line ends would otherwise fill the memory.
MAX_EVENT_BYTES = 4 * 1024 * 1024

_LINE_END = re.compile(rb"\r\n|\n|\r")


class ServerEvent(NamedTuple):
    """One event that carries data."""

    name: str
    data: str


class EventTooLong(ValueError):
    """The body is no event stream, or not one that anybody can hold."""


class SseDecoder:
    """Cuts bytes into events. Bytes are cut at line ends only, so no character is ever split."""

    def __init__(self) -> None:
        self.foreign_line_count = 0  # lines that no event stream has: HTML, bare JSON
        self._rest = b""
        self._name = ""
        self._data: list[bytes] = []
        self._data_bytes = 0

    def feed(self, received: bytes) -> list[ServerEvent]:
        """Return the events that these bytes complete."""
        lines = _LINE_END.split(self._rest + received)
        self._rest = lines.pop()
        if not self._rest and received.endswith(b"\r"):
            # The line feed of a pair may come with the next bytes, and would then read as one blank line more.
            self._rest = lines.pop() + b"\r"
        if len(self._rest) + self._data_bytes > MAX_EVENT_BYTES:
            raise EventTooLong(f"more than {MAX_EVENT_BYTES} bytes without the end of an event")
        return [event for line in lines if (event := self._take(line)) is not None]

    def finish(self) -> list[ServerEvent]:
        """Return what the end of the body completes; some servers leave out the last blank line."""
        lines = [*_LINE_END.split(self._rest), b""]
        self._rest = b""
        return [event for line in lines if (event := self._take(line)) is not None]

    def _take(self, line: bytes) -> ServerEvent | None:
        if not line:
            return self._dispatch()
        field, _, value = line.partition(b":")
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
        return ServerEvent(name, data.decode("utf-8", "replace")) if data else None
