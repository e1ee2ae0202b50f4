"""Load: stopping a run, and coming back to one, while others are live; also through another process than its own."""

import asyncio
import time
from typing import Any

from bench.chat.wire import Exchange, LoadFailed, Target, ask, events_of, request, send
from bench.figures import spread

_PATIENCE_SECONDS = 30
_RAMP_SECONDS = 1.0


async def measure_stops(target: Target, *, runs: int, stop_port: int, upstream_port: int) -> dict[str, Any]:
    """
    Return the times from asking to stop until it is done: `all` is the last of three.

    `told`: the asker has the answer; `seen`: the reader has the end mark; `closed`: the model's call is closed.
    One run after the other, the rest are live and speak.
    """
    await ask(upstream_port, "GET", "/closed")
    keys = [f"stop-{number}" for number in range(runs)]
    begun = await _begin(target, [f"tokens=3000,delay_ms=100,key={key}" for key in keys])
    asked_at, told_at = [], []
    for number, exchange in enumerate(begun):
        if target.kind == "product":
            sent = request("POST", f"{_path(exchange)}/stop", {}, token=target.user(number))
        else:
            sent = request("POST", f"/stop/{keys[number]}", {})
        stop = await send(stop_port, sent, keeps_bytes=True)
        asked_at.append(stop.started_at)
        await asyncio.wait_for(stop.ended, _PATIENCE_SECONDS)
        told_at.append(time.monotonic())
        if stop.status not in {200, 202}:
            raise LoadFailed(f"the stop was refused: {stop.head[:300]!r} {bytes(stop.kept or b'')[:300]!r}")
        await asyncio.wait_for(exchange.ended, _PATIENCE_SECONDS)
    done_at = [exchange.done_at for exchange in begun]
    closed = (await ask(upstream_port, "GET", "/closed"))["closed"]
    if None in done_at or set(keys) - set(closed):
        raise LoadFailed(f"{done_at.count(None)} readers saw no end, {len(set(keys) - set(closed))} calls stayed open")
    closed_at = [closed[key] for key in keys]
    moments = {"told": told_at, "seen": done_at, "closed": closed_at}
    moments["all"] = [max(each) for each in zip(*moments.values(), strict=True)]
    figures: dict[str, Any] = {}
    for name, ends in moments.items():
        times = [end - begin for begin, end in zip(asked_at, ends, strict=True)]
        figures |= {f"{name}_{label}_ms": value for label, value in spread(times, 0.5, 0.95).items()}
    return figures


async def measure_resumes(
    target: Target, *, runs: int, visits: int, resume_port: int, gate_port: int
) -> dict[str, Any]:
    """Return the times from asking for what was missed to its first event. What comes must join without a seam."""
    if target.kind != "product":
        return await _resume_raw(target, runs * visits, gate_port)
    begun = await _begin(target, ["tokens=4000,delay_ms=50"] * runs, keeps_bytes=True)
    readers = [_Reader(exchange, target.user(number)) for number, exchange in enumerate(begun)]
    for reader in readers:
        await reader.leave(3)
    times = []
    for _ in range(visits):
        for reader in readers:
            times.append(await reader.come_back(resume_port))
    for reader in readers:
        await _stop(target.port, reader)
    return {f"resume_{label}_ms": value for label, value in spread(times, 0.5, 0.95).items()}


async def _resume_raw(target: Target, count: int, gate_port: int) -> dict[str, Any]:
    await ask(gate_port, "POST", "/gate/0")
    await ask(gate_port, "POST", "/gate/20")
    times = []
    for _ in range(count):
        exchange = await send(target.port, request("GET", "/log/10"))
        await exchange.reach(1)
        times.append(exchange.first_at - exchange.started_at)
        exchange.close()
    await ask(gate_port, "POST", "/gate/0")
    return {f"resume_{label}_ms": value for label, value in spread(times, 0.5, 0.95).items()}


class _Reader:
    """Somebody who reads a run in visits."""

    def __init__(self, exchange: Exchange, token: str) -> None:
        self.path = _path(exchange)
        self.token = token
        self._exchange = exchange
        self._text = ""
        self._position = ""

    async def leave(self, tokens: int) -> None:
        """Read so many tokens of this visit and go."""
        await asyncio.wait_for(self._exchange.reach(tokens), _PATIENCE_SECONDS)
        self._exchange.first_at  # noqa: B018  (raises when none came)
        self._exchange.close()
        events = [(position, text) for position, text in events_of(bytes(self._exchange.kept or b"")) if text]
        self._text += "".join(text for _, text in events)
        self._position = events[-1][0]
        tokens = self._text.count("token ")
        expected = "".join(f"token {number} " for number in range(1, tokens + 1))
        if self._text != expected:
            raise LoadFailed(f"the text has a seam: {self._text[-200:]!r}")

    async def come_back(self, port: int) -> float:
        """Resume behind the last event; return the seconds to the first one."""
        sent = request("GET", f"{self.path}/events", token=self.token, last_event_id=self._position)
        self._exchange = await send(port, sent, keeps_bytes=True)
        await self.leave(1)
        return self._exchange.first_at - self._exchange.started_at


async def _stop(port: int, reader: _Reader) -> None:
    stop = await send(port, request("POST", f"{reader.path}/stop", {}, token=reader.token))
    await asyncio.wait_for(stop.ended, _PATIENCE_SECONDS)


async def _begin(target: Target, words: list[str], **options: Any) -> list[Exchange]:
    """Begin runs over a second and wait until each has said three tokens."""

    async def begin(number: int) -> Exchange:
        await asyncio.sleep(_RAMP_SECONDS * number / len(words))
        key = words[number].partition("key=")[2]
        exchange = await send(target.port, target.turn(number, words[number].partition(",key=")[0], key), **options)
        await asyncio.wait_for(exchange.reach(3), _PATIENCE_SECONDS)
        exchange.first_at  # noqa: B018  (raises when none came)
        return exchange

    return await asyncio.gather(*(begin(number) for number in range(len(words))))


def _path(exchange: Exchange) -> str:
    return f"/api/v1/agent/runs/{exchange.header(b'x-run-id')}"
