"""Every habit of every provider, by name: what two readers hear of it over real HTTP.

`port` is the executor's own client. `typed` is the openai client's typed stream on the normalising transport, read as
naively as an agent library reads it: calls joined by index, usage from whichever chunk has it, no error means success.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import httpx2
import openai
import pytest

from chat.contracts import HistoryMessage, Role
from chat.llm.answer_body import Patience
from chat.llm.completion import complete
from chat.llm.failures import translated
from chat.llm.normalising_transport import NormalisingTransport
from chat.llm.openai_client import OpenAIChatModel, OpenAIConfig
from chat.llm.port import (
    ModelBadResponse,
    ModelContextTooLong,
    ModelCut,
    ModelError,
    ModelRateLimited,
    ModelRefusedCredentials,
    ModelRequest,
    ModelServerError,
    ModelTimedOut,
    ReasoningDelta,
    StreamEnded,
    TextDelta,
    UsageReported,
)
from tests.scripted_model import ScriptedModel, running_scripted_model
from tests.scripted_model.frames import answer_text
from tests.scripted_model.scenario import read_scenario
from tests.scripted_model.tool_calls import called

MESSAGE = "What is on tomorrow?"
PROMPT = len(MESSAGE)  # the scripted server's way of counting
PATIENCE = Patience(silence_seconds=2.0, usage_seconds=1.0, drain_seconds=0.1)


@dataclass
class Heard:
    """What a reader has when the stream is over."""

    text: str = ""
    thoughts: str = ""
    usage: tuple[int, int] | None = None  # prompt, completion
    calls: list[tuple[str, Any]] = field(default_factory=list)
    finish_reason: str | None = None
    failure: type[ModelError] | None = None
    retry_after_seconds: int | None = None


def whole(scenario: str, **other: Any) -> Heard:
    text = answer_text(read_scenario(f"x:{scenario}", ""))
    return replace(Heard(text=text, usage=(PROMPT, 20), finish_reason="stop"), **other)


def both_calls(chunks: int) -> Heard:
    return Heard(calls=called(), usage=(PROMPT, chunks), finish_reason="tool_calls")


def failed(kind: type[ModelError], **other: Any) -> Heard:
    return Heard(failure=kind, **other)


FIVE_TOKENS = "token 1 token 2 token 3 token 4 token 5 "
TWENTY_THOUGHTS = "hm " * 20

HABITS: dict[str, tuple[str, Heard]] = {
    "usage in its own last chunk": ("usage=own", whole("")),
    "usage on the chunk of the finish reason": ("usage=last", whole("")),
    "usage on the last content chunk": ("usage=content", whole("")),
    "usage after the finish reason": ("usage=after", whole("")),
    "usage as running totals": ("usage=running", whole("")),
    "usage as running totals of a cut answer": (
        "usage=running,cut,after=5",
        failed(ModelCut, text=FIVE_TOKENS, usage=(PROMPT, 5)),
    ),
    "usage absent": ("usage=none", whole("", usage=None)),
    "usage zero": ("usage=zero", whole("", usage=None)),
    "usage null": ("usage=null", whole("", usage=None)),
    "usage inside the choice": ("usage=choice", whole("")),
    "usage that nobody can have used": ("usage=huge", whole("", usage=None)),
    "empty choices": ("empty_choices", whole("")),
    "choices that are no list": ("error=bad_choices,after=5", failed(ModelBadResponse, text=FIVE_TOKENS)),
    "an index as text": ("text_index", whole("")),
    "a byte order mark": ("byte_order_mark", whole("")),
    "no DONE": ("no_done", whole("")),
    "the body stays open after DONE": ("hold", whole("")),
    "nothing after the finish reason": ("stall_end", whole("", usage=None)),
    "cut in the middle": ("cut,after=5", failed(ModelCut, text=FIVE_TOKENS)),
    "ended without a finish reason": ("quiet_cut,after=5", failed(ModelCut, text=FIVE_TOKENS)),
    "ended inside a frame": ("half=40,after=5", failed(ModelCut, text=FIVE_TOKENS)),
    "DONE and usage without a finish reason": (
        "finish=none",
        failed(ModelCut, text=whole("").text, usage=(PROMPT, 20)),
    ),
    "pings as comments, events and text": ("comments", whole("")),
    "pings while silent": ("stall,ping_ms=50,after=5", failed(ModelTimedOut, text=FIVE_TOKENS)),
    "CRLF": ("crlf", whole("")),
    "CRLF with pings, cut anywhere": ("crlf,comments,split=1", whole("")),
    "frames split inside a character": ("text=emoji,split=1", whole("text=emoji")),
    "Chinese split inside a character": ("text=zh,split=2", whole("text=zh")),
    "a packed body": ("text=zh,gzip", whole("text=zh")),
    "a packed body, cut": ("gzip,quiet_cut,after=5", failed(ModelCut, text=FIVE_TOKENS)),
    "tool calls as OpenAI sends them": ("tools=own,finish=tool_calls", both_calls(8)),
    "tool calls, finish reason stop": ("tools=own,finish=stop", both_calls(8)),
    "tool calls, one index for two calls": ("tools=same_index", both_calls(8)),
    "tool calls, one index and no ids": ("tools=same_index_no_id", both_calls(8)),
    "tool calls, no index": ("tools=no_index", both_calls(8)),
    "tool calls, no index and no ids": ("tools=no_index_no_id", both_calls(8)),
    "tool calls, blank ids and names on continuations": ("tools=blank_ids", both_calls(8)),
    "tool calls, continued by id on a wrong index": ("tools=known_id", both_calls(8)),
    "tool calls, continued on the index of another": ("tools=wrong_index", both_calls(8)),
    "tool calls, whole JSON at once": ("tools=whole", both_calls(2)),
    "tool calls, whole JSON, one index for two calls": ("tools=whole_same_index", both_calls(2)),
    "tool calls, whole JSON, one index and no ids": ("tools=whole_same_index_no_id", both_calls(2)),
    "tool calls, whole JSON, no index": ("tools=whole_no_index", both_calls(2)),
    "tool calls, whole JSON, no index and no ids": ("tools=whole_no_index_no_id", both_calls(2)),
    "tool calls, arguments as an object": ("tools=whole_object", both_calls(2)),
    "a function call, as before there were tool calls": (
        "tools=function_call,finish=function_call",
        Heard(calls=called()[:1], usage=(PROMPT, 3), finish_reason="tool_calls"),
    ),
    "tool calls, cut": ("tools=own,quiet_cut,after=2", failed(ModelCut, calls=[("get_weather", '{"cit')])),
    "reasoning_content beside content": ("beside", whole("", thoughts=TWENTY_THOUGHTS)),
    "reasoning_content before content": ("reasoning=2", whole("", thoughts="thought 1 thought 2 ", usage=(PROMPT, 22))),
    "reasoning under its other name": ("beside,reasoning_field=reasoning", whole("", thoughts=TWENTY_THOUGHTS)),
    "content as a list": ("content=list", whole("")),
    "content as a message": ("content=message", whole("")),
    "content as a message, all at once": ("content=message,tokens=1", whole("tokens=1", usage=(PROMPT, 1))),
    "content as a message beside deltas": ("content=both", whole("")),
    "content as the text of a completion": ("content=legacy", whole("")),
    "a refusal": ("refusal", whole("")),
    "an answer that was filtered": (
        "tokens=0,finish=content_filter",
        whole("tokens=0", usage=(PROMPT, 0), finish_reason="content_filter"),
    ),
    "an answer without words": ("tokens=0", whole("tokens=0", usage=(PROMPT, 0))),
    "an answer cut at its bound": ("finish=length", whole("", finish_reason="length")),
    "an error in the middle of a 200": ("error=server_error,after=5", failed(ModelServerError, text=FIVE_TOKENS)),
    "an error event of plain text": ("error=event,after=5", failed(ModelServerError, text=FIVE_TOKENS)),
    "an error object without its name": ("error=vllm,after=0", failed(ModelContextTooLong)),
    "code and message of an error alone": ("error=dashscope,after=0", failed(ModelRefusedCredentials)),
    "a rate limit in the middle of a 200": (
        "error=rate_limit_exceeded,after=5",
        failed(ModelRateLimited, text=FIVE_TOKENS),
    ),
    "429 with Retry-After": ("status=429,retry_after=60", failed(ModelRateLimited, retry_after_seconds=60)),
    "429 for want of credit": ("status=429,code=insufficient_quota", failed(ModelRefusedCredentials)),
    "401": ("status=401", failed(ModelRefusedCredentials)),
    "context too long": ("status=400,code=context_length_exceeded", failed(ModelContextTooLong)),
    "context too long in the middle of a 200": (
        "error=context_length_exceeded,after=0",
        failed(ModelContextTooLong),
    ),
    "503": ("status=503", failed(ModelServerError)),
    "a web page instead of a stream": ("not_sse=html", failed(ModelBadResponse)),
    "JSON instead of a stream": ("not_sse=json", failed(ModelBadResponse)),
}


@pytest.fixture(scope="module")
def scripted() -> Iterator[ScriptedModel]:
    with running_scripted_model() as running:
        yield running


@asynccontextmanager
async def port_client(base_url: str, scenario: str) -> AsyncIterator[OpenAIChatModel]:
    config = OpenAIConfig(
        base_url=base_url,
        api_key="sk-test",
        models={"worker": f"scripted:{scenario}"},
        silence_timeout_seconds=PATIENCE.silence_seconds,
        usage_timeout_seconds=PATIENCE.usage_seconds,
        retries=0,
    )
    model = OpenAIChatModel(config)
    try:
        yield model
    finally:
        await model.aclose()


def asking() -> ModelRequest:
    return ModelRequest(model="worker", messages=(HistoryMessage(role=Role.USER, content=MESSAGE),))


async def hear_port(base_url: str, scenario: str) -> Heard:
    heard, pieces = Heard(), {}
    try:
        async with port_client(base_url, scenario) as model:
            async for event in model.stream(asking()):
                match event:
                    case TextDelta(text):
                        heard.text += text
                    case ReasoningDelta(text):
                        heard.thoughts += text
                    case UsageReported():
                        heard.usage = (event.prompt_tokens, event.completion_tokens)
                    case StreamEnded(reason, calls):
                        heard.finish_reason = reason
                        heard.calls = [(call.name, _loaded(call.arguments)) for call in calls]
                    case _:
                        name, arguments = pieces.get(event.call_id, ("", ""))
                        pieces[event.call_id] = (name + event.name, arguments + event.arguments)
    except ModelError as error:
        heard.failure, heard.retry_after_seconds = type(error), error.retry_after_seconds
    joined = [(name, _loaded(arguments)) for name, arguments in pieces.values()]
    assert heard.failure or heard.calls == joined
    heard.calls = joined
    return heard


async def hear_typed(base_url: str, scenario: str) -> Heard:
    heard, calls, usages = Heard(), {}, []
    transport = NormalisingTransport(httpx2.AsyncHTTPTransport(), PATIENCE)
    client = openai.AsyncOpenAI(
        api_key="sk-test", base_url=base_url, max_retries=0, http_client=httpx2.AsyncClient(transport=transport)
    )
    try:
        stream = await client.chat.completions.create(
            model=f"scripted:{scenario}",
            messages=[{"role": "user", "content": MESSAGE}],
            stream=True,
            stream_options={"include_usage": True},
        )
        async for chunk in stream:
            assert (chunk.id, chunk.model) == ("chatcmpl-scripted", f"scripted:{scenario}")
            if chunk.usage:
                usages.append((chunk.usage.prompt_tokens, chunk.usage.completion_tokens))
            if chunk.choices:
                assert not usages, "usage comes last"
                _hear_choice(heard, calls, chunk.choices[0])
    except (ModelError, openai.APIError) as error:
        failure = error if isinstance(error, ModelError) else translated(error)
        heard.failure, heard.retry_after_seconds = type(failure), failure.retry_after_seconds
    finally:
        await client.close()
    assert len(usages) <= 1
    heard.usage = usages[0] if usages else None
    assert all(re.fullmatch("call_(a|b|[0-9a-f]{24})", call["id"]) for call in calls.values())
    heard.calls = [(call["name"], _loaded(call["arguments"])) for call in calls.values()]
    return heard


def _hear_choice(heard: Heard, calls: dict[int, dict[str, str]], choice: Any) -> None:
    heard.text += choice.delta.content or ""
    heard.thoughts += getattr(choice.delta, "reasoning_content", None) or ""
    heard.finish_reason = choice.finish_reason or heard.finish_reason
    for piece in choice.delta.tool_calls or ():
        call = calls.setdefault(piece.index, {"id": "", "name": "", "arguments": ""})
        call["id"] += piece.id or ""
        call["name"] += piece.function.name or ""
        call["arguments"] += piece.function.arguments or ""


def _loaded(arguments: str) -> object:
    try:
        return json.loads(arguments)
    except ValueError:
        return arguments


@pytest.mark.parametrize("reader", [pytest.param(hear_port, id="port"), pytest.param(hear_typed, id="typed")])
@pytest.mark.parametrize(("scenario", "expected"), HABITS.values(), ids=HABITS)
async def test_habit(scripted: ScriptedModel, scenario: str, expected: Heard, reader: Any) -> None:
    async with asyncio.timeout(20):
        assert await reader(scripted.base_url, scenario) == expected


@pytest.mark.parametrize("usage", ["none", "null", "zero"])
async def test_missing_usage_is_estimated_and_marked(scripted: ScriptedModel, usage: str) -> None:
    async with port_client(scripted.base_url, f"tokens=3,usage={usage}") as model:
        completion = await complete(model, asking())
    assert (completion.text, completion.is_estimated) == ("token 1 token 2 token 3 ", True)
    # "What is on tomorrow?" is 17 letters: 5 tokens and 6 for the message; 18 letters are answered.
    assert completion.usage == UsageReported(11, 5, 16)


async def test_reported_usage_is_not_estimated(scripted: ScriptedModel) -> None:
    async with port_client(scripted.base_url, "tokens=3") as model:
        completion = await complete(model, asking())
    assert (completion.usage, completion.is_estimated) == (UsageReported(PROMPT, 3, PROMPT + 3), False)
