"""Load: turns, and what their readers see. Each job is one measurement against one target."""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from typing import Any

from bench.chat import proc
from bench.chat.wire import Exchange, LoadFailed, Target, ask, send
from bench.figures import spread

# A pause between bursts, in which the last one's ends reach the database.
PAUSE_SECONDS = 0.5
START_PATIENCE_SECONDS = 60
TURN_SECONDS = 60


async def converse(target: Target, number: int, words: str, *, tokens: int) -> Exchange:
    """Ask, and read the whole answer. Raises: LoadFailed when it is not whole."""
    exchange = await send(target.port, target.turn(number, words))
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(exchange.ended, TURN_SECONDS)
    if exchange.tokens != tokens or (exchange.done_at is None and target.kind != "bytes"):
        seconds = time.monotonic() - exchange.started_at
        raise LoadFailed(
            f"{target.kind}: {exchange.tokens} of {tokens} tokens after {seconds:.1f} s,"
            f" {exchange.head[:60]!r} … {exchange.last[-400:]!r}"
        )
    return exchange


async def measure_gaps(
    target: Target, *, runs: int, per_second: int, tokens: int, ramp_seconds: float, pid: int
) -> dict[str, Any]:
    """Return the gaps between tokens while all runs are live: from the last first token to the first last one."""
    words = f"tokens={tokens},delay_ms={1000 // per_second}"

    async def ask_later(number: int) -> Exchange:
        await asyncio.sleep(ramp_seconds * number / runs)
        return await converse(target, number, words, tokens=tokens)

    used = proc.cpu_seconds(pid)
    started = time.monotonic()
    exchanges = await asyncio.gather(*(ask_later(number) for number in range(runs)))
    used, seconds = proc.cpu_seconds(pid) - used, time.monotonic() - started
    begin = max(exchange.first_at for exchange in exchanges)
    end = min(exchange.arrivals[-1][0] for exchange in exchanges)
    gaps = [gap for exchange in exchanges for gap in _gaps(exchange, begin, end)]
    if end - begin < 1 or not gaps:
        raise LoadFailed(f"{target.kind}: all runs were live for {end - begin:.1f} s only; give them more tokens")
    return {
        **{f"gap_{name}_ms": value for name, value in spread(gaps, 0.5, 0.99).items()},
        "window_seconds": round(end - begin, 2),
        "cores": round(used / seconds, 2),
    }


def _gaps(exchange: Exchange, begin: float, end: float) -> list[float]:
    """Return a gap a token; those that came together with another have none."""
    gaps: list[float] = []
    for (before, _), (now, count) in zip(exchange.arrivals, exchange.arrivals[1:], strict=False):
        if begin <= before and now <= end:
            gaps += [now - before] + [0.0] * (count - 1)
    return gaps


async def measure_throughput(
    target: Target, *, runs: int, tokens: int, delay_ms: int, upstream_port: int, pid: int
) -> dict[str, Any]:
    """
    Return tokens a second when the model offers more than the target can pass on.

    Everybody has begun before the first token may come. `whole` counts the time to the end of the last answer,
    `streaming` that to its last token.
    """
    await ask(upstream_port, "POST", "/gate/0")
    words = f"tokens={tokens},delay_ms={delay_ms},gate"
    turns = [asyncio.create_task(converse(target, number, words, tokens=tokens)) for number in range(runs)]
    await _wait_open(upstream_port, runs, turns)
    used, started = proc.cpu_seconds(pid), time.monotonic()
    await ask(upstream_port, "POST", f"/gate/{tokens}")
    exchanges = await asyncio.gather(*turns)
    ended = time.monotonic()
    used = proc.cpu_seconds(pid) - used
    last = max(exchange.arrivals[-1][0] for exchange in exchanges)
    return {
        "streaming_tokens_per_second": round(runs * tokens / (last - started)),
        "whole_tokens_per_second": round(runs * tokens / (ended - started)),
        "offered_tokens_per_second": round(runs * 1000 / delay_ms),
        "us_per_token": round(used / (runs * tokens) * 1e6, 1),
        "cores": round(used / (ended - started), 2),
    }


async def _wait_open(upstream_port: int, count: int, turns: Sequence["asyncio.Task[Exchange]"]) -> None:
    deadline = time.monotonic() + START_PATIENCE_SECONDS
    while (await ask(upstream_port, "GET", "/closed"))["open"] < count:
        for turn in turns:
            if turn.done():
                turn.result()
                raise LoadFailed("an answer ended before the gate was opened")
        if time.monotonic() > deadline:
            raise LoadFailed(f"not all of {count} turns reached the model")
        await asyncio.sleep(0.05)


async def measure_first_tokens(
    target: Target, *, single: int, burst: int, bursts: int, steady_seconds: float
) -> dict[str, Any]:
    """
    Return the times from asking to the first token: one by one, in bursts, and with so many under way at any time.

    In `steady`, each of the users asks again half a second after an answer of about two seconds ended.
    """
    await _burst(target, burst)  # connections and caches on every hop
    await asyncio.sleep(PAUSE_SECONDS)
    figures: dict[str, Any] = {}
    one_by_one = [await _time_first(target, number, "tokens=10,delay_ms=5", 10) for number in range(single)]
    at_once = []
    for _ in range(bursts):
        at_once += await _burst(target, burst)
        await asyncio.sleep(PAUSE_SECONDS)
    steady = await _steady(target, burst, steady_seconds)
    for name, seconds in (("single", one_by_one), ("burst", at_once), ("steady", steady)):
        figures |= {f"{name}_{label}_ms": value for label, value in spread(seconds, 0.5, 0.95).items()}
    return {**figures, "steady_turns": len(steady)}


async def _burst(target: Target, count: int) -> list[float]:
    return await asyncio.gather(*(_time_first(target, number, "tokens=10,delay_ms=5", 10) for number in range(count)))


async def _time_first(target: Target, number: int, words: str, tokens: int) -> float:
    exchange = await converse(target, number, words, tokens=tokens)
    return exchange.first_at - exchange.started_at


async def _steady(target: Target, users: int, seconds: float) -> list[float]:
    until = time.monotonic() + seconds
    times: list[float] = []

    async def go_on(number: int) -> None:
        await asyncio.sleep(number * 2.5 / users)
        while time.monotonic() < until:
            times.append(await _time_first(target, number, "tokens=40,delay_ms=50", 40))
            await asyncio.sleep(PAUSE_SECONDS)

    await asyncio.gather(*(go_on(number) for number in range(users)))
    return times[users:]  # without the ramp


async def measure_memory(
    target: Target, *, runs: int, step: int, concurrent: int, pid: int, tokens: int
) -> dict[str, Any]:
    """Return the resident memory after every `step` answers, and how many came a second."""
    sizes = []
    started = time.monotonic()
    for first in range(0, runs, step):
        numbers = iter(range(first, first + step))

        async def take_turns(numbers: Any = numbers) -> None:
            for number in numbers:
                await converse(target, number, f"tokens={tokens}", tokens=tokens)

        await asyncio.gather(*(take_turns() for _ in range(concurrent)))
        sizes.append(proc.rss_mb(pid))
    seconds = time.monotonic() - started
    return {"rss_mb": sizes, "step": step, "runs_per_second": round(runs / seconds, 1)}
