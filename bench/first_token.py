"""The time that the product adds before the first token, against the same model server without it.

One client process speaks to both sides with the same code and in turns: a burst directly, a burst through the product.
"""

import asyncio
import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

import httpx2

from bench.figures import Load, medians, spread
from bench.installation import Installation
from bench.processes import BenchFailed
from tests.scripted_model import running_scripted_model

MODEL = "scripted:tokens=10,delay_ms=5"
QUESTION = "What is on my schedule tomorrow?"
PASSWORD = "korrekt-Pferd-9-Batterie"
CONCURRENT = (1, 50)
# Neither side's head chunk matches: its content is an empty text.
FIRST_CONTENT = re.compile(rb'"content":\s*"[^"]')
# After a burst the worker and the consumer still write what it left; the next one is not to pay for it.
PAUSE_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much is asked in one run."""

    users: int
    single: int  # turns one after the other
    bursts: int  # of 50 turns at once


@dataclass(frozen=True, kw_only=True)
class Side:
    """One way to the model: where to ask, what, and as whom."""

    url: str
    body: bytes
    headers: list[dict[str, str]]
    end: bytes

    async def time_first_token(self, client: httpx2.AsyncClient, number: int) -> float:
        """Ask, read the whole answer and return the seconds from sending to the first piece of text."""
        headers = self.headers[number % len(self.headers)]
        first = None
        seen = b""
        started = time.perf_counter()
        async with client.stream("POST", self.url, content=self.body, headers=headers) as answer:
            async for piece in answer.aiter_bytes():
                seen += piece
                if first is None and FIRST_CONTENT.search(seen):
                    first = time.perf_counter() - started
        if first is None or self.end not in seen:
            raise BenchFailed(f"{self.url} gave no whole answer: {answer.status_code} {seen[-500:]!r}")
        return first

    async def time_turns(self, client: httpx2.AsyncClient, *, concurrent: int, effort: Effort) -> list[float]:
        """Return the times of one round: some turns one by one, or one burst at once."""
        if concurrent == 1:
            return [await self.time_first_token(client, number) for number in range(_ROUND)]
        return await asyncio.gather(*(self.time_first_token(client, number) for number in range(concurrent)))


_ROUND = 10


def measure(
    installation: Installation, *, runs: int, effort: Effort, may_go_on: Callable[[], bool], model_url: str, load: Load
) -> dict[str, object]:
    """Return the medians over the runs, by number of concurrent turns. The processes are running."""
    sides = {
        "direct": Side(
            url=f"{model_url}/chat/completions",
            body=json.dumps(
                {
                    "model": MODEL,
                    "messages": [{"role": "user", "content": QUESTION}],
                    "stream": True,
                    "stream_options": {"include_usage": True},
                }
            ).encode(),
            headers=[{"Content-Type": "application/json"}],
            end=b"[DONE]",
        ),
        "through": Side(
            url=f"{installation.base_url}/api/v1/agent/chat",
            body=json.dumps({"message": QUESTION}).encode(),
            headers=[
                {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
                for token in sign_up(installation.base_url, effort.users)
            ],
            end=b'"finish_reason":"stop"',
        ),
    }
    found = asyncio.run(_measure_sides(sides, runs, effort, may_go_on, load))
    installation.check_alive()
    return {**found, "load": load.report()}


async def _measure_sides(
    sides: dict[str, Side], runs: int, effort: Effort, may_go_on: Callable[[], bool], load: Load
) -> dict[str, object]:
    by_run: dict[int, list[dict[str, float | None]]] = {concurrent: [] for concurrent in CONCURRENT}
    limits = httpx2.Limits(max_connections=200, max_keepalive_connections=200)
    async with httpx2.AsyncClient(timeout=60, limits=limits, trust_env=False) as client:
        for side in sides.values():  # connections and caches on every hop
            await side.time_turns(client, concurrent=max(CONCURRENT), effort=effort)
        for _ in range(runs):
            for concurrent in CONCURRENT:
                by_run[concurrent].append(await _run_once(client, sides, concurrent, effort))
            load.look()
            if not may_go_on():
                break
    return {
        "runs": len(by_run[1]),
        "samples_a_run": {"1": effort.single, "50": effort.bursts * 50},
        **{str(concurrent): medians(found) for concurrent, found in by_run.items()},
    }


async def _run_once(
    client: httpx2.AsyncClient, sides: dict[str, Side], concurrent: int, effort: Effort
) -> dict[str, float | None]:
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(effort.single // _ROUND if concurrent == 1 else effort.bursts):
        for name, side in sides.items():
            times[name] += await side.time_turns(client, concurrent=concurrent, effort=effort)
            await asyncio.sleep(PAUSE_SECONDS)
    figures: dict[str, float | None] = {}
    for name, seconds in times.items():
        figures |= {f"{name}_{label}": value for label, value in spread(seconds, 0.5, 0.95).items()}
    for label in ("p50", "p95"):
        figures[f"added_{label}"] = round(float(figures[f"through_{label}"]) - float(figures[f"direct_{label}"]), 1)  # type: ignore[arg-type]
    return figures


def sign_up(base_url: str, users: int) -> list[str]:
    """Return the tokens of some new users."""
    tokens = []
    with httpx2.Client(base_url=f"{base_url}/api/v1", timeout=60, trust_env=False) as client:
        for number in range(users):
            account = {"username": f"bench-{number}-{time.time_ns()}", "password": PASSWORD}
            client.post("/user/register", json={**account, "phone_number": "1"}).raise_for_status()
            signed_in = client.post("/user/login", json=account).raise_for_status()
            tokens.append(signed_in.json()["data"]["access_token"])
    return tokens


def model_variables(base_url: str) -> dict[str, str]:
    """Return what leads the product to the scripted model."""
    return {"OPENAI_BASE_URL": base_url, "OPENAI_API_KEY": "sk-scripted-0123456789", "SMARTFLOW_MODEL_WORKER": MODEL}


__all__ = ["Effort", "measure", "model_variables", "running_scripted_model"]
