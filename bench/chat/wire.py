"""The load's side of the wire: one connection a request, read with as little work as counting needs.

Tokens are counted by their word, `token `, which stands in the text of each and nowhere else; so it does not matter
into how many events a server puts them. Times are those of arrival in this process.
"""

import asyncio
import json
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

TOKEN = b"token "
DONE = b"[DONE]"
_LAST_CHUNK = b"0\r\n\r\n"
# So many connections have one source address: a single one would run short of ports, and so would one that several
# processes of the load use one after the other, as a port stays taken for a minute after its connection has ended.
_CONNECTIONS_AN_ADDRESS = 10_000
_NETWORK = f"127.{os.getpid() >> 8 & 0xFF}.{os.getpid() & 0xFF}"


class LoadFailed(Exception):
    """A server gave something else than a whole answer."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """One server, and what a turn is called there: the product, a relay, or the model itself."""

    port: int
    kind: str  # product | relay | bytes | direct
    tokens: tuple[str, ...] = ()  # of the users who take turns asking

    def turn(self, number: int, words: str, key: str = "") -> bytes:
        """Return the request of a turn."""
        message = f"What is on my schedule tomorrow? [[{words}{',key=' + key if key else ''}]]"
        if self.kind == "product":
            return request("POST", "/api/v1/agent/chat", {"message": message}, token=self.user(number))
        if self.kind == "direct":
            body = {"messages": [{"role": "user", "content": message}], "stream": True}
            return request("POST", "/v1/chat/completions", body)
        return request("POST", f"/{self.kind}", {"message": message, "key": key})

    def user(self, number: int) -> str:
        """Return the token of the user whose turn it is."""
        return self.tokens[number % len(self.tokens)]


def request(method: str, path: str, body: Any = None, *, token: str = "", last_event_id: str = "") -> bytes:
    """Return a request's bytes."""
    content = b"" if body is None else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", "Accept: text/event-stream"]
    lines += [f"Authorization: Bearer {token}"] if token else []
    lines += [f"Last-Event-ID: {last_event_id}"] if last_event_id else []
    lines += ["Content-Type: application/json", f"Content-Length: {len(content)}"] if method == "POST" else []
    return "\r\n".join([*lines, "", ""]).encode() + content


class Exchange(asyncio.Protocol):
    """One request and its answer."""

    def __init__(
        self, sent: bytes, *, keeps_bytes: bool = False, on_tokens: Callable[[int], None] | None = None
    ) -> None:
        self.sent = sent
        self._on_tokens = on_tokens
        self.started_at = 0.0
        self.head = b""
        self.tokens = 0
        self.arrivals: list[tuple[float, int]] = []  # when tokens came, and how many at once
        self.kept: bytearray | None = bytearray() if keeps_bytes else None
        self.done_at: float | None = None
        self.last = b""  # what came last, for whoever has to say why something failed
        self.headed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tail = b""
        self._left = -1  # bytes of a body whose length is known
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._transport: asyncio.Transport | None = None

    @property
    def status(self) -> int:
        """The answer's status; 0 before it."""
        return int(self.head[9:12]) if self.head else 0

    @property
    def first_at(self) -> float:
        """When the first token came. Raises: LoadFailed when none did."""
        if not self.arrivals:
            raise LoadFailed(f"no token came: {self.head[:300]!r} {bytes(self.kept or b'')[:300]!r} {self._tail!r}")
        return self.arrivals[0][0]

    def header(self, name: bytes) -> str:
        """Return a header's value."""
        for line in self.head.split(b"\r\n"):
            key, _, value = line.partition(b": ")
            if key.lower() == name:
                return value.decode()
        raise LoadFailed(f"no header {name!r} in {self.head!r}")

    async def reach(self, tokens: int) -> None:
        """Wait until so many tokens have come."""
        if self.tokens < tokens and not self.ended.done():
            reached = asyncio.get_running_loop().create_future()
            self._waiting.append((tokens, reached))
            await reached

    def close(self) -> None:
        """Leave."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by class
        self._transport.write(self.sent)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        if not self.head:
            self._tail += data
            head, blank, data = self._tail.partition(b"\r\n\r\n")
            if not blank:
                return
            self._tail = b""
            self._begin(head)
        if self.kept is not None:
            self.kept += data
        seen = self.last = self._tail + data
        self._tail = seen[-5:]
        self._count(seen.count(TOKEN), now)
        if self.done_at is None and DONE in seen:
            self.done_at = now
        self._left -= len(data) if self._left >= 0 else 0
        if seen.endswith(_LAST_CHUNK) or self._left == 0:
            self._end()

    def connection_lost(self, _error: Exception | None) -> None:
        self._end()

    def _count(self, tokens: int, now: float) -> None:
        if not tokens:
            return
        self.tokens += tokens
        self.arrivals.append((now, tokens))
        if self._on_tokens is not None:
            self._on_tokens(tokens)
        if self._waiting:
            self._wake()

    def _begin(self, head: bytes) -> None:
        self.head = head
        length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
        self._left = int(length.group(1)) if length else -1
        self.headed.set_result(None)

    def _wake(self) -> None:
        for tokens, reached in self._waiting:
            if tokens <= self.tokens and not reached.done():
                reached.set_result(None)
        self._waiting = [pair for pair in self._waiting if not pair[1].done()]

    def _end(self) -> None:
        self.close()
        for future in (self.headed, self.ended, *(future for _, future in self._waiting)):
            if not future.done():
                future.set_result(None)


_opened = 0


async def send(
    port: int, sent: bytes, *, keeps_bytes: bool = False, on_tokens: Callable[[int], None] | None = None
) -> Exchange:
    """Connect and send; the answer comes by itself. The clock starts before the connection does."""
    global _opened
    _opened += 1
    source = f"{_NETWORK}.{2 + _opened // _CONNECTIONS_AN_ADDRESS % 200}"
    exchange = Exchange(sent, keeps_bytes=keeps_bytes, on_tokens=on_tokens)
    exchange.started_at = time.monotonic()
    await asyncio.get_running_loop().create_connection(lambda: exchange, "127.0.0.1", port, local_addr=(source, 0))
    return exchange


async def ask(port: int, method: str, path: str, *, token: str = "") -> dict[str, Any]:
    """Return the JSON answer of a short request."""
    exchange = await send(port, request(method, path, token=token), keeps_bytes=True)
    await exchange.ended
    if exchange.status != 200:
        raise LoadFailed(f"{method} {path}: {exchange.head[:300]!r} {bytes(exchange.kept or b'')[:500]!r}")
    found: dict[str, Any] = json.loads(bytes(exchange.kept or b""))
    return found


def events_of(kept: bytes) -> list[tuple[str, str]]:
    """Return the id and the text of every whole event in a chunked body."""
    body, rest = b"", kept
    while b"\r\n" in rest:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size, 16)
        if not length or len(rest) < length + 2:
            break
        body, rest = body + rest[:length], rest[length + 2 :]
    events = []
    for event in body.decode().split("\n\n")[:-1]:
        fields = dict(line.partition(": ")[::2] for line in event.split("\n"))
        if fields.get("data", "").startswith("{"):
            choices = json.loads(fields["data"]).get("choices") or [{"delta": {}}]
            events.append((fields.get("id", ""), choices[0]["delta"].get("content", "")))
    return events
