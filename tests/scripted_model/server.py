"""The scripted server itself: a raw ASGI application, one coroutine a request, nothing between it and the socket.

POST /v1/chat/completions answers by scenario. GET /_seen tells what was sent, GET /_open which streams are open,
POST /_reset forgets both.
"""

import asyncio
import json
import zlib
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from typing import Any

from chat.memory.titles import INSTRUCTION
from tests.scripted_model.frames import Frames, answer_text, build_frames, error_frame, numbered_echo
from tests.scripted_model.scenario import Scenario, ScenarioMisspelled, read_scenario

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

MAX_KEPT_BODIES = 100
_EVENT_STREAM = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
_JSON = [(b"content-type", b"application/json")]
_BODIES_THAT_ARE_NO_STREAM = {
    "html": (b"text/html", b"<!doctype html>\n<html><body>\n<h1>Please log in</h1>\n</body></html>\n"),
    "json": (b"application/json", b'{"ok": true, "note": "not a stream"}'),
}


class ScriptedServer:
    """The application; one object holds all that it has seen."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget what was seen; open streams stay open."""
        self.bodies: deque[dict[str, Any]] = deque(maxlen=MAX_KEPT_BODIES)
        self.titles: deque[dict[str, Any]] = deque(maxlen=MAX_KEPT_BODIES)
        self.headers: deque[dict[str, str]] = deque(maxlen=MAX_KEPT_BODIES)
        self.request_count = 0
        self.abandoned_count = 0
        self.finished_count = 0
        self.refusals: Counter[str] = Counter()
        self.connections: set[object] = set()
        self.open: dict[int, str] = getattr(self, "open", {})

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        route = (scope["method"], scope["path"])
        if route == ("POST", "/v1/chat/completions"):
            await self._complete(scope, receive, send)
        elif route == ("GET", "/_seen"):
            await _answer_json(send, self._seen())
        elif route == ("GET", "/_open"):
            await _answer_json(send, {"count": len(self.open), "models": list(self.open.values())})
        elif route == ("POST", "/_reset"):
            self.reset()
            await _answer_json(send, {})
        else:
            await _answer_json(send, {"error": {"message": "no such path", "code": "not_found"}}, status=404)

    def _seen(self) -> dict[str, Any]:
        return {
            "requests": self.request_count,
            "finished": self.finished_count,
            "abandoned": self.abandoned_count,
            "connections": len(self.connections),
            "bodies": list(self.bodies),
            "titles": list(self.titles),
            "headers": list(self.headers),
        }

    async def _complete(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        body = json.loads(await _read_body(receive))
        if _asks_for_title(body):
            # its material quotes the words of the conversation's scenario: they were not meant for it
            self.titles.append(body)
            frames = build_frames(Scenario(tokens=3), body["model"], "", _prompt_tokens(body), True)
            stream = _Stream(Scenario(tokens=3), frames, receive, send)
            await stream.run()
            stream.watcher.cancel()
            return
        self._remember(scope, body)
        message = _last_user_message(body)
        try:
            scenario = read_scenario(body["model"], message)
        except ScenarioMisspelled as error:
            await _answer_json(send, _error("scenario_misspelled", str(error)), status=400)
            return
        if scenario.tools and body["messages"][-1].get("role") == "tool":
            scenario = replace(scenario, tools="", finish="stop")
        if scenario.status != 200 and self._is_refused(scenario, body["model"]):
            await _answer_refusal(send, scenario)
        elif scenario.not_sse:
            kind, content = _BODIES_THAT_ARE_NO_STREAM[scenario.not_sse]
            await _answer(send, content, headers=[(b"content-type", kind)])
        elif not body.get("stream"):
            await _answer_json(send, _whole_answer(scenario, body, message))
        else:
            await self._stream(scenario, body, message, receive, send)

    def _remember(self, scope: dict[str, Any], body: dict[str, Any]) -> None:
        self.request_count += 1
        self.bodies.append(body)
        self.headers.append({name.decode(): value.decode() for name, value in scope["headers"]})
        self.connections.add(tuple(scope["client"] or ()))

    def _is_refused(self, scenario: Scenario, model: str) -> bool:
        key = scenario.key or model
        self.refusals[key] += 1
        return self.refusals[key] <= scenario.times

    async def _stream(
        self, scenario: Scenario, body: dict[str, Any], message: str, receive: Receive, send: Send
    ) -> None:
        echoed = message if scenario.text == "echo" else ""
        if scenario.numbered:
            echoed = numbered_echo(echoed, self.request_count)
        wants_usage = bool((body.get("stream_options") or {}).get("include_usage"))
        frames = build_frames(scenario, body["model"], echoed, _prompt_tokens(body), wants_usage)
        stream = _Stream(scenario, frames, receive, send)
        number = id(stream)
        self.open[number] = body["model"]
        try:
            await stream.run()
        finally:
            del self.open[number]
            stream.watcher.cancel()
            self.finished_count += stream.is_finished
            self.abandoned_count += stream.is_abandoned


def _asks_for_title(body: dict[str, Any]) -> bool:
    first: dict[str, Any] = next(iter(body["messages"]), {})
    return first.get("role") == "system" and first.get("content") == INSTRUCTION


class _ClientGone(Exception):
    """The client has closed its connection."""


class _Stream:
    """Sends one answer and notices when its reader goes."""

    def __init__(self, scenario: Scenario, frames: Frames, receive: Receive, send: Send) -> None:
        self.scenario = scenario
        self.frames = frames
        self.is_finished = False
        self.is_abandoned = False
        self._send = send
        self._gone = asyncio.Event()
        self._packer = zlib.compressobj(wbits=31)
        self.watcher = asyncio.create_task(self._watch(receive))

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._gone.set()

    async def run(self) -> None:
        try:
            packing = [(b"content-encoding", b"gzip")] if self.scenario.gzip else []
            await self._send({"type": "http.response.start", "status": 200, "headers": _EVENT_STREAM + packing})
            if await self._send_answer():
                rest = self._packer.flush() if self.scenario.gzip else b""
                await self._send({"type": "http.response.body", "body": rest, "more_body": False})
                self.is_finished = True
        except _ClientGone:
            self.is_abandoned = True

    async def _send_answer(self) -> bool:
        """Send the frames; False when the socket is to be closed instead of the body ended."""
        scenario = self.scenario
        await self._silence(scenario.first_ms)
        await self._frames(self.frames.head, delay_ms=0)
        if not (scenario.cut or scenario.quiet_cut or scenario.stall or scenario.error or scenario.half):
            await self._frames(self.frames.content, delay_ms=scenario.delay_ms)
            return await self._send_tail()
        await self._frames(self.frames.content[: scenario.after], delay_ms=scenario.delay_ms)
        if scenario.stall:
            await self._silence(None)
        if scenario.error:
            await self._bytes(error_frame(scenario.error))
            if scenario.hold:
                await self._silence(None)
        if scenario.half:
            await self._bytes(self.frames.content[scenario.after][: scenario.half])
        return not scenario.cut

    async def _send_tail(self) -> bool:
        if self.scenario.stall_end:
            await self._frames(self.frames.tail[:1], delay_ms=0)
            await self._silence(None)
        await self._frames(self.frames.tail, delay_ms=0)
        if self.scenario.hold:
            await self._silence(None)
        return True

    async def _frames(self, frames: Iterable[bytes], *, delay_ms: float) -> None:
        for frame in frames:
            if delay_ms:
                await self._silence(delay_ms)
            await self._bytes(frame)

    async def _bytes(self, content: bytes) -> None:
        if self._gone.is_set():
            raise _ClientGone
        if self.scenario.gzip:
            content = self._packer.compress(content) + self._packer.flush(zlib.Z_SYNC_FLUSH)
        size = self.scenario.split or len(content)
        for start in range(0, len(content), size):
            await self._send({"type": "http.response.body", "body": content[start : start + size], "more_body": True})
            if self.scenario.split:
                # A turn of the loop, so that the pieces leave as packets of their own.
                await asyncio.sleep(0)

    async def _silence(self, milliseconds: float | None) -> None:
        """Say nothing so long, for ever when None; pings, if the scenario has them, are not a word."""
        if milliseconds == 0:
            return
        deadline = None if milliseconds is None else asyncio.get_running_loop().time() + milliseconds / 1000
        while not await self._is_gone(deadline):
            if deadline is not None and asyncio.get_running_loop().time() >= deadline:
                return
            await self._bytes(b": ping\n\n")
        raise _ClientGone

    async def _is_gone(self, deadline: float | None) -> bool:
        """Wait for the client's end, the deadline or the next ping, whichever is first."""
        now = asyncio.get_running_loop().time()
        ping_at = now + self.scenario.ping_ms / 1000 if self.scenario.ping_ms else None
        until = min((at for at in (deadline, ping_at) if at is not None), default=None)
        if until is not None and until - now < 0.1:
            # A plain sleep is many times cheaper, which counts at thousands of tokens a second.
            await asyncio.sleep(until - now)
            return self._gone.is_set()
        try:
            async with asyncio.timeout_at(until):
                await self._gone.wait()
        except TimeoutError:
            return False
        return True


async def _read_body(receive: Receive) -> bytes:
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


def _last_user_message(body: dict[str, Any]) -> str:
    said = [message["content"] for message in body.get("messages", ()) if message.get("role") == "user"]
    return said[-1] if said and isinstance(said[-1], str) else ""


def _prompt_tokens(body: dict[str, Any]) -> int:
    return sum(len(str(message.get("content", ""))) for message in body.get("messages", ()))


def _error(code: str, message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": code, "code": code, "param": None}}


async def _answer_refusal(send: Send, scenario: Scenario) -> None:
    headers = list(_JSON)
    if scenario.retry_after:
        headers.append((b"retry-after", scenario.retry_after.encode()))
    message = f"Refused with {scenario.status}, key sk-scripted-0123456789abcdef, see https://upstream.test/help"
    content = json.dumps(_error(scenario.code or f"status_{scenario.status}", message)).encode()
    await _answer(send, content, status=scenario.status, headers=headers)


def _whole_answer(scenario: Scenario, body: dict[str, Any], message: str) -> dict[str, Any]:
    text = answer_text(scenario, message)
    prompt = _prompt_tokens(body)
    return {
        "id": "chatcmpl-scripted",
        "object": "chat.completion",
        "created": 1700000000,
        "model": body["model"],
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": scenario.finish}],
        "usage": {
            "prompt_tokens": prompt,
            "completion_tokens": scenario.tokens,
            "total_tokens": prompt + scenario.tokens,
        },
    }


async def _answer_json(send: Send, payload: dict[str, Any], *, status: int = 200) -> None:
    await _answer(send, json.dumps(payload, ensure_ascii=False).encode(), status=status, headers=_JSON)


async def _answer(send: Send, content: bytes, *, headers: list[tuple[bytes, bytes]], status: int = 200) -> None:
    length = (b"content-length", str(len(content)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": content})
