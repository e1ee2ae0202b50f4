"""The offline model: the same answer every time, in the student's language, token by token."""

import asyncio

import pytest

from chat.contracts import HistoryMessage, Role
from chat.llm.offline import MAX_QUOTE_CHARACTERS, OfflineChatModel, compose_answer
from chat.llm.port import ModelEvent, ModelRequest, StreamEnded, TextDelta, UsageReported
from chat.memory.budget import estimate_prompt, estimate_text


def asking(message: str, *, earlier: tuple[HistoryMessage, ...] = ()) -> ModelRequest:
    said = HistoryMessage(role=Role.USER, content=message)
    return ModelRequest(model="worker", messages=(*earlier, said), system_prompt="Be kind.")


async def answered(request: ModelRequest) -> list[ModelEvent]:
    return [event async for event in OfflineChatModel(delay_seconds=0).stream(request)]


def text_of(events: list[ModelEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


@pytest.mark.parametrize("message", ["When is my exam?", "明天有课吗？", "emoji 👩‍👩‍👧 and\nlines", ""])
async def test_stream_joins_to_the_composed_answer(message: str) -> None:
    events = await answered(asking(message))
    assert text_of(events) == compose_answer(asking(message))
    assert all(event.text for event in events if isinstance(event, TextDelta))


async def test_stream_gives_the_same_events_every_time() -> None:
    request = asking("明天有课吗？")
    assert await answered(request) == await answered(request)


async def test_stream_comes_in_many_small_pieces() -> None:
    english = [event for event in await answered(asking("hello")) if isinstance(event, TextDelta)]
    chinese = [event for event in await answered(asking("你好")) if isinstance(event, TextDelta)]
    assert len(english) > 80
    assert len(chinese) > 80
    assert max(len(event.text) for event in english) < 40


async def test_stream_ends_with_usage_by_the_estimate_rule_and_one_stop() -> None:
    request = asking("hello", earlier=(HistoryMessage(role=Role.ASSISTANT, content="Yes?"),))
    *_, usage, ended = await answered(request)
    prompt = estimate_prompt(request.messages, system_prompt="Be kind.")
    completion = estimate_text(compose_answer(request))
    assert usage == UsageReported(prompt, completion, prompt + completion)
    assert ended == StreamEnded("stop")


async def test_stream_pauses_between_tokens() -> None:
    loop = asyncio.get_running_loop()
    stream = OfflineChatModel(delay_seconds=0.02).stream(asking("hello"))
    started = loop.time()
    await anext(stream)
    await anext(stream)
    assert loop.time() - started >= 0.04
    await stream.aclose()


def test_compose_answer_says_what_it_is_and_how_to_connect_a_model() -> None:
    text = compose_answer(asking("When is my exam?"))
    assert "offline model" in text
    assert "OPENAI_API_KEY" in text
    assert "SMARTFLOW_MODEL_WORKER" in text
    assert "“When is my exam?”" in text


def test_compose_answer_is_chinese_when_the_message_holds_han_characters() -> None:
    text = compose_answer(asking("exam 什么时候?"))
    assert "离线模型" in text
    assert "“exam 什么时候?”" in text
    assert "OPENAI_API_KEY" in text


def test_compose_answer_follows_the_last_message_and_counts_the_earlier_ones() -> None:
    earlier = (
        HistoryMessage(role=Role.USER, content="你好"),
        HistoryMessage(role=Role.ASSISTANT, content="你好！"),
    )
    text = compose_answer(asking("hello", earlier=earlier))
    assert "offline model" in text
    assert "2 of your messages" in text


def test_compose_answer_bounds_the_quote_and_leaves_braces_alone() -> None:
    assert "“" + "x" * MAX_QUOTE_CHARACTERS + "…”" in compose_answer(asking("x" * 300_000))
    assert "“{quote} {0} %s”" in compose_answer(asking("{quote} {0} %s"))
