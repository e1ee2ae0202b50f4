"""Load: many readers of a process. Idle ones for what they weigh, and those of one log for what they cost."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from bench.chat import proc
from bench.chat.wire import Exchange, LoadFailed, Target, ask, request, send

_OPENING_AT_ONCE = 200
_ROUND_SECONDS = 30
# After the start of a process, until what it needs at rest is all that it has.
_QUIET_SECONDS = 7
# A connection that is open for the length of a look each second is not always open; one that is held is.
_COUNTS = 5


async def measure_idle(
    target: Target, *, tails: int, live_runs: int, home_port: int, hold_seconds: float, pid: int, database_port: int
) -> dict[str, Any]:
    """
    Return what a process needs for so many open streams on which nothing happens but pings.

    The runs are executed by the process at `home_port`: what an executor needs for its runs is no part of it.
    """
    if target.kind == "product":
        paths = await _begin_silent_runs(replace(target, port=home_port), live_runs)
        wanted = [request("GET", path, token=target.user(number)) for number, path in enumerate(paths)]
    else:
        wanted = [request("GET", "/idle")]
    await asyncio.sleep(_QUIET_SECONDS if target.kind == "product" else 0)
    before, connections = proc.rss_mb(pid), await _count_held(pid, database_port)
    started = time.monotonic()
    opened = await _open(target.port, [wanted[number % len(wanted)] for number in range(tails)])
    seconds = time.monotonic() - started
    used = proc.cpu_seconds(pid)
    await asyncio.sleep(hold_seconds)
    used = proc.cpu_seconds(pid) - used
    figures = {
        "rss_mb": proc.rss_mb(pid),
        "rss_before_mb": before,
        "threads": proc.thread_count(pid),
        "database_connections": await _count_held(pid, database_port),
        "database_connections_before": connections,
        "opened_per_second": round(tails / seconds),
        "cores_at_rest": round(used / hold_seconds, 3),
    }
    if any(tail.ended.done() for tail in opened):
        raise LoadFailed(f"{sum(tail.ended.done() for tail in opened)} of {tails} tails were ended by the server")
    for tail in opened:
        tail.close()
    return {**figures, "bytes_per_tail": round((figures["rss_mb"] - before) * 1024**2 / tails)}


async def _count_held(pid: int, database_port: int) -> int:
    """Return how many connections the process never was without, over a second or so."""
    counts = []
    for _ in range(_COUNTS):
        counts.append(proc.connection_count(pid, database_port))
        await asyncio.sleep(0.17)
    return min(counts)


async def _begin_silent_runs(target: Target, count: int) -> list[str]:
    """Begin runs whose model says five tokens and then nothing; return where they are followed."""
    begun = await asyncio.gather(*(send(target.port, target.turn(number, "tokens=5,stall")) for number in range(count)))
    for exchange in begun:
        await asyncio.wait_for(exchange.reach(5), _ROUND_SECONDS)
        exchange.first_at  # noqa: B018  (raises when none came)
        exchange.close()
    return [f"/api/v1/agent/runs/{exchange.header(b'x-run-id')}/events" for exchange in begun]


async def _open(port: int, wanted: Sequence[bytes], **options: Any) -> list[Exchange]:
    """Open streams, some at a time, and wait until each has been answered."""
    opened: list[Exchange] = []
    left = iter(wanted)

    async def open_some() -> None:
        for sent in left:
            tail = await send(port, sent, **options)
            opened.append(tail)
            await tail.headed
            if tail.status != 200:
                raise LoadFailed(f"a tail was refused: {tail.head[:400]!r} {tail.last!r}")

    await asyncio.gather(*(open_some() for _ in range(_OPENING_AT_ONCE)))
    return opened


async def measure_one_log(
    target: Target, *, tails: int, tokens: int, warm_tokens: int, gate_port: int, pid: int
) -> dict[str, Any]:
    """
    Return the events a second that so many readers of one log get.

    Two events are under way at most: another is said when all have the last but one, so no reader falls behind and gets
    several as one, and neither side waits for the other.
    """
    await ask(gate_port, "POST", "/gate/0")
    if target.kind == "product":
        turn = await send(target.port, target.turn(0, f"tokens={tokens + warm_tokens},gate"))
        await turn.headed
        run_id = turn.header(b"x-run-id")
        wanted = request("GET", f"/api/v1/agent/runs/{run_id}/events", token=target.user(0))
    else:
        wanted = request("GET", "/log")
    rounds = _Rounds(tails)
    opened = await _open(target.port, [wanted] * tails, on_tokens=rounds.count)
    await rounds.go_on(warm_tokens, gate_port)
    used, started = proc.cpu_seconds(pid), time.monotonic()
    await rounds.go_on(tokens, gate_port)
    seconds = time.monotonic() - started
    used = proc.cpu_seconds(pid) - used
    for tail in opened:
        tail.close()
    await ask(gate_port, "POST", f"/gate/{0 if target.kind != 'product' else tokens + warm_tokens}")
    return {
        "events_per_second": round(tails * tokens / seconds),
        "us_per_event": round(used / (tails * tokens) * 1e6, 1),
        "cores": round(used / seconds, 2),
    }


class _Rounds:
    """Counts what all tails together have got."""

    def __init__(self, tails: int) -> None:
        self._tails = tails
        self._got = 0
        self._wanted = 0
        self._opened = 0
        self._reached = asyncio.Event()

    def count(self, tokens: int) -> None:
        """Take note of tokens that one tail has got."""
        self._got += tokens
        if self._got >= self._wanted:
            self._reached.set()

    async def go_on(self, tokens: int, gate_port: int) -> None:
        """Let so many more tokens be said and wait until every tail has them."""
        last = self._opened + tokens
        while self._opened < last:
            self._opened += 1
            await ask(gate_port, "POST", f"/gate/{self._opened}")
            await self._reach(self._opened - 1)
        await self._reach(last)

    async def _reach(self, number: int) -> None:
        self._wanted = self._tails * number
        self._reached.clear()
        if self._got >= self._wanted:
            return
        try:
            await asyncio.wait_for(self._reached.wait(), _ROUND_SECONDS)
        except TimeoutError:
            raise LoadFailed(f"token {number}: {self._got} of {self._wanted} events came") from None
