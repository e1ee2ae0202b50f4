"""pydantic-ai on the openai client hears bent streams rightly on our transport, and wrongly without it.

The second half holds the library's own gaps fast: a test there that fails after an upgrade tells that one was mended.
"""

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
import openai
import pytest
from pydantic_ai import Agent
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from chat.llm.answer_body import Patience
from chat.llm.failures import translated
from chat.llm.normalising_transport import NormalisingTransport
from chat.llm.port import (
    ModelBadResponse,
    ModelCut,
    ModelError,
    ModelRateLimited,
    ModelServerError,
    ModelTimedOut,
)
from tests.scripted_model import ScriptedModel, running_scripted_model
from tests.scripted_model.tool_calls import FORMS

Wrap = Callable[[httpx2.AsyncBaseTransport], httpx2.AsyncBaseTransport]
PATIENCE = Patience(silence_seconds=2.0, usage_seconds=0.2, drain_seconds=0.1)
BOTH_TOOLS = [("get_weather", "Paris"), ("get_time", "UTC")]


@pytest.fixture(scope="module")
def scripted() -> Iterator[ScriptedModel]:
    with running_scripted_model() as running:
        yield running


def normalised(transport: httpx2.AsyncBaseTransport) -> httpx2.AsyncBaseTransport:
    return NormalisingTransport(transport, PATIENCE)


def plain(transport: httpx2.AsyncBaseTransport) -> httpx2.AsyncBaseTransport:
    return transport


@dataclass
class Turn:
    """What came of one turn of an agent with two tools."""

    ran: list[tuple[str, str]] = field(default_factory=list)
    streamed: int = 0
    output: str = ""
    tokens: tuple[int, int] = (0, 0)


@asynccontextmanager
async def connected(base_url: str, wrap: Wrap) -> AsyncIterator[openai.AsyncOpenAI]:
    http_client = httpx2.AsyncClient(transport=wrap(httpx2.AsyncHTTPTransport()))
    client = openai.AsyncOpenAI(api_key="sk-test", base_url=base_url, max_retries=0, http_client=http_client)
    try:
        yield client
    finally:
        await client.close()


async def take_turn(base_url: str, scenario: str, wrap: Wrap) -> Turn:
    turn = Turn()
    async with connected(base_url, wrap) as client:
        agent = Agent(OpenAIChatModel(f"scripted:{scenario}", provider=OpenAIProvider(openai_client=client)))

        @agent.tool_plain
        def get_weather(city: str) -> str:
            turn.ran.append(("get_weather", city))
            return "sunny"

        @agent.tool_plain
        def get_time(zone: str) -> str:
            turn.ran.append(("get_time", zone))
            return "noon"

        async def watch(context: Any, events: AsyncIterable[Any]) -> None:
            async for _ in events:
                turn.streamed += 1

        result = await agent.run("How is it there?", event_stream_handler=watch)
    turn.output, turn.tokens = result.output, (result.usage.input_tokens, result.usage.output_tokens)
    return turn


@pytest.mark.parametrize("form", FORMS)
async def test_agent_runs_both_tools_once_and_answers(scripted: ScriptedModel, form: str) -> None:
    turn = await take_turn(scripted.base_url, f"tools={form},tokens=2", normalised)
    assert sorted(turn.ran) == sorted(BOTH_TOOLS)  # they run side by side
    assert turn.output == "token 1 token 2 "
    assert turn.streamed > 4


@pytest.mark.parametrize("usage", ["own", "last", "content", "after", "running"])
async def test_agent_counts_usage_once(scripted: ScriptedModel, usage: str) -> None:
    turn = await take_turn(scripted.base_url, f"tokens=3,usage={usage}", normalised)
    assert turn.tokens == (len("How is it there?"), 3)


@pytest.mark.parametrize(
    ("scenario", "kind"),
    [
        ("cut,after=5", ModelCut),
        ("quiet_cut,after=5", ModelCut),
        ("finish=none", ModelCut),
        ("tools=own,quiet_cut,after=2", ModelCut),
        ("error=server_error,after=3", ModelServerError),
        ("stall,ping_ms=50", ModelTimedOut),
        ("not_sse=html", ModelBadResponse),
    ],
)
async def test_agent_fails_by_name_when_the_answer_breaks(
    scripted: ScriptedModel, scenario: str, kind: type[ModelError]
) -> None:
    with pytest.raises(kind):
        await take_turn(scripted.base_url, scenario, normalised)


async def test_agent_leaves_a_refusal_to_be_translated(scripted: ScriptedModel) -> None:
    with pytest.raises(ModelHTTPError) as raised:
        await take_turn(scripted.base_url, "status=429,retry_after=60", normalised)
    assert isinstance(raised.value.__cause__, openai.APIStatusError)
    failure = translated(raised.value.__cause__)
    assert (type(failure), failure.retry_after_seconds) == (ModelRateLimited, 60)


async def test_transport_closes_the_call_when_its_reader_goes(scripted: ScriptedModel) -> None:
    async with connected(scripted.base_url, normalised) as client:
        stream = await client.chat.completions.create(
            model="scripted:stall,after=2", messages=[{"role": "user", "content": "hi"}], stream=True
        )
        async with stream:
            await anext(aiter(stream))
        scripted.wait_until_open_count(0, within_seconds=2)


async def test_transport_uses_a_connection_again(scripted: ScriptedModel) -> None:
    scripted.reset()
    async with connected(scripted.base_url, normalised) as client:
        for _ in range(3):
            stream = await client.chat.completions.create(
                model="scripted", messages=[{"role": "user", "content": "hi"}], stream=True
            )
            assert [chunk async for chunk in stream]
    assert scripted.seen()["connections"] == 1


async def test_transport_leaves_an_answer_alone_that_is_not_streamed(scripted: ScriptedModel) -> None:
    async with connected(scripted.base_url, normalised) as client:
        answer = await client.chat.completions.create(
            model="scripted:tokens=2", messages=[{"role": "user", "content": "hi"}]
        )
    assert answer.choices[0].message.content == "token 1 token 2 "


# --- the library's own gaps -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("form", ["same_index", "same_index_no_id", "wrong_index", "whole_same_index"])
async def test_agent_runs_no_tool_without_the_transport(scripted: ScriptedModel, form: str) -> None:
    assert (await take_turn(scripted.base_url, f"tools={form},tokens=2", plain)).ran == []


async def test_agent_takes_a_cut_answer_for_success_without_the_transport(scripted: ScriptedModel) -> None:
    turn = await take_turn(scripted.base_url, "quiet_cut,after=2", plain)
    assert (turn.output, turn.tokens) == ("token 1 token 2 ", (0, 0))


async def test_agent_adds_running_totals_up_without_the_transport(scripted: ScriptedModel) -> None:
    turn = await take_turn(scripted.base_url, "tokens=3,usage=running", plain)
    assert turn.tokens > (len("How is it there?"), 3)
