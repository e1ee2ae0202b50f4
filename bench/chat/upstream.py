"""The scripted model as cheap as it gets: the frames of tests/scripted_model, written straight to the socket.

`python -m bench.chat.upstream` prints `listening on PORT`. Its words stand in the last `[[…]]` of a request's body:
`tokens`, `delay_ms`, `first_ms`; `gate` waits before each token until POST /gate has opened so many; `stall` says
nothing more after the tokens; `key` names the answer for GET /closed, which tells when its connection ended.
"""

import asyncio
import functools
import json
import re
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import uvloop

from tests.scripted_model.frames import Frames, build_frames
from tests.scripted_model.scenario import Scenario

MODEL = "scripted"
BACKLOG = 4096
_DIRECTIVE = re.compile(rb"\[\[([^\]]*)\]\]")
_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
_END = b"0\r\n\r\n"


@dataclass(frozen=True)
class Script:
    """One answer, chunk by chunk as it goes over the wire."""

    opening: bytes  # the head of the response and the chunks before the first token
    tokens: tuple[bytes, ...]
    closing: bytes
    first_seconds: float
    delay_seconds: float
    is_gated: bool
    stalls: bool
    key: str


@functools.lru_cache(maxsize=16)
def _frames(tokens: int) -> Frames:
    return build_frames(Scenario(tokens=tokens), MODEL, "", 20, True)


@functools.lru_cache(maxsize=16)
def _wire(tokens: int) -> tuple[bytes, tuple[bytes, ...], bytes]:
    frames = _frames(tokens)
    head, tail = (b"".join(map(_chunk, part)) for part in (frames.head, frames.tail))
    return _HEAD + head, tuple(map(_chunk, frames.content)), tail + _END


def read_script(body: bytes) -> Script:
    """Return what a request's last directive asks for."""
    found = _DIRECTIVE.findall(body)
    words = dict(word.partition("=")[::2] for word in found[-1].decode().split(",")) if found else {}
    opening, tokens, closing = _wire(int(words.get("tokens", 10)))
    return Script(
        opening=opening,
        tokens=tokens,
        closing=closing,
        first_seconds=float(words.get("first_ms", 0)) / 1000,
        delay_seconds=float(words.get("delay_ms", 0)) / 1000,
        is_gated="gate" in words,
        stalls="stall" in words,
        key=words.get("key", ""),
    )


def _chunk(content: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(content), content)


class Gate:
    """Tokens that gated answers may have said."""

    def __init__(self) -> None:
        self.opened = 0
        self._waiting: list[Callable[[], None]] = []

    def open(self, count: int) -> None:
        """Let every gated answer go on to this token."""
        self.opened = count
        waiting, self._waiting = self._waiting, []
        for go_on in waiting:
            go_on()

    def wait(self, go_on: Callable[[], None]) -> None:
        """Call back when it is opened further."""
        self._waiting.append(go_on)


class Answering(asyncio.Protocol):
    """One connection: requests one after the other, as a client that keeps connections sends them."""

    gate = Gate()
    closed: dict[str, float] = {}
    open_count = 0

    def __init__(self) -> None:
        self._received = b""
        self._script: Script | None = None
        self._said = 0
        self._transport: asyncio.Transport
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by class

    def connection_lost(self, _error: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._script is not None:
            Answering.open_count -= 1
            if self._script.key:
                self.closed[self._script.key] = time.monotonic()
            self._script = None

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, blank, rest = self._received.partition(b"\r\n\r\n")
        if not blank:
            return
        length = _content_length(head)
        if len(rest) < length:
            return
        self._received = rest[length:]
        self._take(head.split(b" ", 2), rest[:length])

    def _take(self, request: list[bytes], body: bytes) -> None:
        path = request[1]
        if path == b"/v1/chat/completions":
            self._begin(read_script(body))
        elif path.startswith(b"/gate/"):
            self.gate.open(int(path[6:]))
            self._tell({"opened": self.gate.opened})
        elif path == b"/closed":
            self._tell({"closed": self.closed, "open": self.open_count})
            self.closed.clear()
        else:
            self._tell({"error": {"message": "no such path"}})

    def _tell(self, values: dict[str, object]) -> None:
        content = json.dumps(values).encode()
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(content)
        self._transport.write(head + content)

    def _begin(self, script: Script) -> None:
        self._script, self._said = script, 0
        Answering.open_count += 1
        self._transport.write(script.opening)
        self._after(script.first_seconds)

    def _after(self, seconds: float) -> None:
        if seconds:
            self._timer = self._loop.call_later(seconds, self._go_on)
        else:
            self._go_on()

    def _go_on(self) -> None:
        """Say the next token, or everything that is left when no time lies between tokens."""
        script = self._script
        if script is None:
            return
        if self._said == len(script.tokens):
            self._finish(script)
        elif script.is_gated and self._said >= self.gate.opened:
            self.gate.wait(self._go_on)
        elif script.delay_seconds or script.is_gated:
            self._transport.write(script.tokens[self._said])
            self._said += 1
            self._after(script.delay_seconds)
        else:
            self._transport.write(b"".join(script.tokens))
            self._said = len(script.tokens)
            self._go_on()

    def _finish(self, script: Script) -> None:
        if not script.stalls:
            self._script = None
            Answering.open_count -= 1
            self._transport.write(script.closing)


def _content_length(head: bytes) -> int:
    found = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
    return int(found.group(1)) if found else 0


async def _serve() -> None:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = await asyncio.get_running_loop().create_server(Answering, sock=listener, backlog=BACKLOG)
    print(f"listening on {listener.getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve())
