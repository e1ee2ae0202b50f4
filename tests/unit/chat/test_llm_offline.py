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


def said(role: Role, content: str) -> HistoryMessage:
    return HistoryMessage(role=role, content=content)


@pytest.mark.parametrize(
    ("message", "title"),
    [
        ("When is my exam? I forgot.", "When is my exam"),
        ("  Plan\nmy week  ", "Plan my week"),
        ("Please tell me about the university library opening hours", "Please tell me about the"),
        ("明天上午九点有高等数学课，请记得带作业。谢谢", "明天上午九点有高等数学课，请记得带作业"),
        ("课" * 100, "课" * 24),
        ("https://example.test/a/very/long/address/without/a/blank", "https://example.test/a/v"),
        ("Version 3.5 is out. Good?", "Version 3.5 is out"),
        ("user: 明天有课吗？\nassistant: 有，九点。\nuser: 谢谢", "明天有课吗"),
        ("Name this conversation.\n- User: Move my lecture\n- Assistant: Done.", "Move my lecture"),
        ("", ""),
    ],
)
async def test_stream_gives_the_users_first_words_for_a_title(message: str, title: str) -> None:
    request = ModelRequest(model="worker", messages=(said(Role.USER, message),), purpose="title")
    events = await answered(request)
    assert text_of(events) == title
    assert events[-1] == StreamEnded("stop")


async def test_stream_gives_a_title_from_the_first_message_of_a_conversation() -> None:
    messages = (said(Role.USER, "Buy milk"), said(Role.ASSISTANT, "Noted."), said(Role.USER, "Thanks"))
    request = ModelRequest(model="worker", messages=messages, purpose="title")
    assert text_of(await answered(request)) == "Buy milk"


async def test_stream_gives_what_was_said_for_a_summary() -> None:
    messages = (said(Role.USER, "Buy milk\n\n  and   bread"), said(Role.ASSISTANT, "好的"))
    request = ModelRequest(model="worker", messages=messages, purpose="summary")
    assert text_of(await answered(request)) == "Buy milk\nand bread\n好的"


@pytest.mark.parametrize(("max_tokens", "limit"), [(None, 1200), (100, 100), (5000, 1200)])
async def test_stream_bounds_a_summary_and_keeps_its_beginning_and_end(max_tokens: int | None, limit: int) -> None:
    messages = tuple(said(Role.USER, f"line {number} " + "x" * 20) for number in range(1000))
    request = ModelRequest(model="worker", messages=messages, purpose="summary", max_output_tokens=max_tokens)
    text = text_of(await answered(request))
    assert text.startswith("line 0 ")
    assert "line 999 " in text
    assert limit / 2 < len(text) <= limit
    assert estimate_text(text) <= limit


async def test_stream_bounds_a_summary_of_one_long_line() -> None:
    request = ModelRequest(
        model="worker", messages=(said(Role.USER, "课" * 10_000),), purpose="summary", max_output_tokens=50
    )
    assert text_of(await answered(request)) == "课" * 50


async def test_stream_does_not_dawdle_when_nobody_watches() -> None:
    request = ModelRequest(model="worker", messages=(said(Role.USER, "a b c"),), purpose="summary")
    async with asyncio.timeout(5):
        assert [event async for event in OfflineChatModel(delay_seconds=60).stream(request)]
