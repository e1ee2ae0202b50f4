"""The raw comparison: ASGI applications under the same server and options as the product, with nothing stored.

No Django, no database, no user. `POST /relay` reads with the openai client's typed stream, `POST /bytes` reads the
body's bytes through the same client; `GET /idle` is a stream that only pings; `GET /log` follows one log of frames
that `/gate/n` lets grow; `POST /stop/key` closes a relay's call.
"""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import openai
import orjson

from bench.chat.upstream import MODEL

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

PING_SECONDS = 5.0
_PING = b": ping\n\n"
_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]
_BEFORE = b'data: {"id":"relay","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":'
_AFTER = b'},"finish_reason":null}]}\n\n'
_END = b"data: [DONE]\n\n"


def frame(text: str) -> bytes:
    """Return one event."""
    return _BEFORE + json.dumps(text, ensure_ascii=False).encode() + _AFTER


def _client() -> openai.AsyncOpenAI:
    limits = httpx2.Limits(max_connections=2000, max_keepalive_connections=100)
    return openai.AsyncOpenAI(
        api_key="sk-scripted-0123456789",
        base_url=os.environ["OPENAI_BASE_URL"],
        max_retries=0,
        http_client=openai.DefaultAsyncHttpx2Client(timeout=60, limits=limits),
    )


class Log:
    """Frames that many connections follow; each waits for the same future."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.is_over = False
        self.changed: asyncio.Future[None] | None = None

    def grow(self, count: int) -> None:
        """Have so many frames; none at all ends it."""
        self.is_over = not count
        self.frames += [frame(f"token {number} ") for number in range(len(self.frames) + 1, count + 1)]
        if self.changed is not None:
            self.changed.set_result(None)
            self.changed = None

    def next_change(self) -> "asyncio.Future[None]":
        """Return what is done when there is more."""
        if self.changed is None:
            self.changed = asyncio.get_running_loop().create_future()
        return self.changed


class Floor:
    """The application."""

    def __init__(self) -> None:
        self._openai: openai.AsyncOpenAI | None = None
        self._log = Log()
        self._relays: dict[str, asyncio.Task[Any] | None] = {}

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        _, route, *rest = scope["path"].split("/")
        if route in {"relay", "bytes"}:
            await self._relay(route, receive, send)
        elif route == "idle":
            await _idle(receive, send)
        elif route == "log":
            await self._follow(int(rest[0]) if rest else 0, send)
        else:
            await _tell(send, self._steer(route, rest))

    def _steer(self, route: str, rest: list[str]) -> dict[str, object]:
        """Do what a short request asks for."""
        if route == "gate":
            self._log.grow(int(rest[0]))
            if self._log.is_over:
                self._log = Log()
        elif route == "stop" and (task := self._relays.get(rest[0])) is not None:
            task.cancel()
        return {"done": route}

    async def _relay(self, route: str, receive: Receive, send: Send) -> None:
        asked = json.loads((await receive())["body"])
        if self._openai is None:
            self._openai = _client()
        self._relays[asked.get("key", "")] = asyncio.current_task()
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        try:
            await (self._typed if route == "relay" else self._bytes)(asked["message"], send)
        except asyncio.CancelledError:
            pass
        finally:
            self._relays.pop(asked.get("key", ""), None)
        await send({"type": "http.response.body", "body": _END, "more_body": False})

    async def _typed(self, message: str, send: Send) -> None:
        assert self._openai is not None
        chunks = await self._openai.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": message}],
            stream=True,
            stream_options={"include_usage": True},
        )
        async with chunks:
            async for chunk in chunks:
                text = chunk.choices[0].delta.content if chunk.choices else None
                if text:
                    await send({"type": "http.response.body", "body": frame(text), "more_body": True})

    async def _bytes(self, message: str, send: Send) -> None:
        assert self._openai is not None
        body = {
            "model": MODEL,
            "messages": [{"role": "user", "content": message}],
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        response = await self._openai.post(
            "/chat/completions",
            cast_to=httpx2.Response,
            content=orjson.dumps(body),
            stream=True,
            stream_cls=openai.AsyncStream[object],
        )
        rest = b""
        async for received in response.aiter_bytes():  # type: ignore[attr-defined]
            *events, rest = (rest + received).split(b"\n\n")
            chunks = [orjson.loads(event[6:]) for event in events if event != b"data: [DONE]"]
            texts = [chunk["choices"][0]["delta"].get("content") for chunk in chunks if chunk["choices"]]
            frames = b"".join(frame(text) for text in texts if text)
            if frames:
                await send({"type": "http.response.body", "body": frames, "more_body": True})

    async def _follow(self, after: int, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        log, seen = self._log, after
        while not log.is_over:
            if seen < len(log.frames):
                frames, seen = b"".join(log.frames[seen:]), len(log.frames)
                await send({"type": "http.response.body", "body": frames, "more_body": True})
            else:
                await log.next_change()
        await send({"type": "http.response.body", "body": _END, "more_body": False})


async def _idle(receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
    await send({"type": "http.response.body", "body": _PING, "more_body": True})
    gone = asyncio.ensure_future(_wait_for_disconnect(receive))
    while not gone.done():
        done, _ = await asyncio.wait({gone}, timeout=PING_SECONDS)
        if not done:
            await send({"type": "http.response.body", "body": _PING, "more_body": True})


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _tell(send: Send, values: dict[str, object]) -> None:
    content = json.dumps(values).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": content})


application = Floor()
