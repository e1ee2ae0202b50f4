"""Chunks of many providers, read into the port's events."""

import json
from typing import Any

import pytest

from chat.llm.chunks import MOST_TOKENS_OF_CALL, ChunkReader
from chat.llm.port import (
    ModelBadResponse,
    ModelContextTooLong,
    ModelError,
    ModelEvent,
    ModelRateLimited,
    ModelRefusedCredentials,
    ModelRejectedRequest,
    ModelServerError,
    ReasoningDelta,
    StreamEnded,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    UsageReported,
)
from chat.llm.sse_decoder import ServerEvent


def read(reader: ChunkReader, *chunks: dict[str, Any] | str, name: str = "") -> list[ModelEvent]:
    texts = [chunk if isinstance(chunk, str) else json.dumps(chunk) for chunk in chunks]
    return [event for text in texts for event in reader.read(ServerEvent(name, text.encode()))]


def delta(**fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": None}]}


def finish(reason: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}


@pytest.mark.parametrize(
    ("fields", "events"),
    [
        ({"content": "hi"}, [TextDelta("hi")]),
        ({"content": " \n"}, [TextDelta(" \n")]),
        ({"content": ""}, []),
        ({"content": None, "role": "assistant"}, []),
        ({"content": ["a", {"type": "text", "text": "b"}, {"type": "image"}]}, [TextDelta("a"), TextDelta("b")]),
        ({"refusal": "no"}, [TextDelta("no")]),
        ({"reasoning_content": "hm"}, [ReasoningDelta("hm")]),
        ({"reasoning": "hm"}, [ReasoningDelta("hm")]),
        ({"reasoning": "hm", "reasoning_content": "hm"}, [ReasoningDelta("hm")]),
        ({"reasoning_content": "hm", "content": "hi"}, [ReasoningDelta("hm"), TextDelta("hi")]),
        (
            {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]},
            [ReasoningDelta("hm")],
        ),
        ({"content": 5, "tool_calls": None}, []),
        ({"content": "hi", "reasoning_content": None, "tool_calls": [], "role": "assistant"}, [TextDelta("hi")]),
        ({"content": "hi", "refusal": "no"}, [TextDelta("hi"), TextDelta("no")]),
        (
            {"content": "hi", "tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": "{"}}]},
            [TextDelta("hi"), ToolCallDelta(0, "a", "f", "{")],
        ),
    ],
)
def test_read_gives_what_a_delta_says(fields: dict[str, Any], events: list[ModelEvent]) -> None:
    assert read(ChunkReader(), delta(**fields)) == events


@pytest.mark.parametrize(
    "chunk",
    [
        "ping",
        "[PING]",
        "[1]",
        "{}",
        '{"choices": null}',
        '{"choices": []}',
        '{"choices": [null]}',
        '{"choices": [{"delta": null}]}',
        '{"choices": [{"index": 1, "delta": {"content": "another choice"}}]}',
        '{"choices": [{"index": [0], "delta": {"content": "no choice"}}]}',
        '{"type": "ping"}',
    ],
)
def test_read_gives_nothing_for_chunks_without_words(chunk: str) -> None:
    reader = ChunkReader()
    assert read(reader, chunk) == []
    assert reader.finish_reason == ""


@pytest.mark.parametrize("chunk", ['{"choices": [', '{"choices": 5}', '{"choices": {"index": 0}}'])
def test_read_raises_when_a_chunk_is_broken(chunk: str) -> None:
    with pytest.raises(ModelBadResponse):
        read(ChunkReader(), chunk)


@pytest.mark.parametrize("reason", ["stop", "length", "content_filter", "tool_calls"])
def test_read_remembers_the_finish_reason_and_reads_on(reason: str) -> None:
    reader = ChunkReader()
    usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    events = read(reader, finish(reason), finish(None), finish(""), {"choices": [], "usage": usage}, "[DONE]")
    assert events == [UsageReported(3, 4, 7)]
    assert reader.finish_reason == reason
    assert reader.is_done


def test_read_takes_text_finish_and_usage_from_one_chunk() -> None:
    reader = ChunkReader()
    usage = {"prompt_tokens": 3, "completion_tokens": 4}
    choice = {"index": 0, "delta": {"content": "hi"}, "finish_reason": "stop"}
    assert read(reader, {"choices": [choice], "usage": usage}) == [TextDelta("hi"), UsageReported(3, 4, 7)]
    assert reader.finish_reason == "stop"


def test_read_replaces_bytes_that_are_no_text() -> None:
    data = b'{"choices": [{"index": 0, "delta": {"content": "a\xffb"}}], "usage": {"prompt_tokens": NaN}}'
    assert list(ChunkReader().read(ServerEvent("", data))) == [TextDelta("a\ufffdb")]


@pytest.mark.parametrize(
    ("said", "reason"), [("stop", "tool_calls"), ("function_call", "tool_calls"), ("length", "length")]
)
def test_ended_says_that_tools_are_called(said: str, reason: str) -> None:
    reader = ChunkReader()
    read(
        reader, delta(tool_calls=[{"index": 0, "id": "a", "function": {"name": "f", "arguments": "{}"}}]), finish(said)
    )
    assert reader.ended() == StreamEnded(reason, (ToolCall("a", "f", "{}"),))


def test_read_gives_what_was_said_before_the_failure_in_the_same_chunk() -> None:
    chunk = {"choices": [{"index": 0, "delta": {"content": "hi"}, "finish_reason": "error"}]}
    events = iter(ChunkReader().read(ServerEvent("", json.dumps(chunk).encode())))
    assert next(events) == TextDelta("hi")
    with pytest.raises(ModelServerError):
        next(events)


def test_read_does_not_take_done_for_a_finish_reason() -> None:
    reader = ChunkReader()
    read(reader, delta(content="hi"), "[DONE]")
    assert reader.finish_reason == ""


@pytest.mark.parametrize(
    ("reported", "usage"),
    [
        ({"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}, UsageReported(3, 4, 7)),
        ({"prompt_tokens": 3, "completion_tokens": 4}, UsageReported(3, 4, 7)),
        ({"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 12}, UsageReported(3, 4, 12)),
        ({"prompt_tokens": 3.0, "completion_tokens": None, "total_tokens": 2}, UsageReported(3, 0, 3)),
        ({"prompt_tokens": -3, "completion_tokens": True, "total_tokens": "9"}, None),
        ({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, None),
        ({}, None),
        (None, None),
        ("many", None),
        (
            {"prompt_tokens": MOST_TOKENS_OF_CALL, "completion_tokens": 0},
            UsageReported(MOST_TOKENS_OF_CALL, 0, 20_000_000),
        ),
        ({"prompt_tokens": MOST_TOKENS_OF_CALL, "completion_tokens": 1}, None),
        ({"prompt_tokens": 10**19, "completion_tokens": 1e300}, None),
        (
            {"prompt_tokens": 1, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 10**19}},
            UsageReported(1, 1, 2, cached_tokens=2),
        ),
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 20,
                "total_tokens": 30,
                "prompt_tokens_details": {"cached_tokens": 8},
                "completion_tokens_details": {"reasoning_tokens": 5},
            },
            UsageReported(10, 20, 30, cached_tokens=8, reasoning_tokens=5),
        ),
        (
            {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2, "prompt_tokens_details": None},
            UsageReported(1, 1, 2),
        ),
    ],
)
def test_read_gives_usage_unless_it_is_empty(reported: Any, usage: UsageReported | None) -> None:
    assert read(ChunkReader(), {"choices": [], "usage": reported}) == ([usage] if usage else [])


def test_read_gives_running_totals_once_each() -> None:
    totals = [{"prompt_tokens": 5, "completion_tokens": count} for count in (1, 2, 2, 3)]
    events = read(ChunkReader(), *({"choices": [], "usage": total} for total in totals))
    assert events == [UsageReported(5, count, 5 + count) for count in (1, 2, 3)]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"message": "boom", "type": "server_error"}, ModelServerError),
        ({"message": "boom", "code": 502}, ModelServerError),
        ("boom", ModelServerError),
        ({"message": "slow down", "code": "rate_limit_exceeded"}, ModelRateLimited),
        ({"message": "slow down", "code": 429}, ModelRateLimited),
        ({"message": "the context length is 8192", "code": 400}, ModelContextTooLong),
        ({"message": "no", "code": "invalid_api_key"}, ModelRefusedCredentials),
        ({"message": "You exceeded your current quota", "type": "insufficient_quota"}, ModelRefusedCredentials),
        ([{"error": {"message": "boom", "code": 503}}], ModelServerError),
    ],
)
def test_read_raises_the_providers_own_error_by_kind(error: Any, kind: type[ModelError]) -> None:
    with pytest.raises(kind):
        read(ChunkReader(), {"error": error})


def test_read_raises_for_an_event_that_is_named_error() -> None:
    with pytest.raises(ModelServerError) as raised:
        read(ChunkReader(), {"message": "overloaded", "type": "server_error"}, name="error")
    assert "overloaded" in raised.value.detail


@pytest.mark.parametrize(
    ("text", "kind"), [("overloaded", ModelServerError), ("maximum context length is 8192", ModelContextTooLong)]
)
def test_read_raises_for_plain_text_in_an_event_that_is_named_error(text: str, kind: type[ModelError]) -> None:
    with pytest.raises(kind) as raised:
        read(ChunkReader(), text, name="error")
    assert text in raised.value.detail


@pytest.mark.parametrize(
    ("chunk", "kind"),
    [
        ({"object": "error", "message": "maximum context length is 8192", "code": 400}, ModelContextTooLong),
        ({"object": "error", "message": "no", "type": "BadRequestError", "code": 400}, ModelRejectedRequest),
        ({"code": "InvalidApiKey", "message": "Invalid API-key provided."}, ModelRefusedCredentials),
        ({"code": "Throttling.RateQuota", "message": "slow down"}, ModelRateLimited),
    ],
)
def test_read_raises_for_a_chunk_that_is_an_error_itself(chunk: dict[str, Any], kind: type[ModelError]) -> None:
    with pytest.raises(kind):
        read(ChunkReader(), chunk)


def test_read_gives_words_beside_a_code() -> None:
    assert read(ChunkReader(), {"code": 0, "message": "Success"} | delta(content="hi")) == [TextDelta("hi")]


def test_read_raises_when_the_finish_reason_is_an_error() -> None:
    reader = ChunkReader()
    with pytest.raises(ModelServerError):
        read(reader, finish("error"))
    assert reader.finish_reason == ""
