"""The frames of one scripted answer, encoded once and kept: at high rates, encoding would be most of the work."""

import functools
import json
from dataclasses import dataclass
from typing import Any

from tests.scripted_model.scenario import Scenario
from tests.scripted_model.tool_calls import deltas_of, function_call_deltas

_ZH = "明天上午九点有高等数学课，请记得带作业。"
_EMOJI = "好的👍🏽，周三🗓️ 去图书馆📚，和👩‍👩‍👧一起🎉。"

# Failures in the middle of a 200 as others than OpenAI say them.
ERRORS = {
    "vllm": b'data: {"object":"error","message":"This model\'s maximum context length is 8192 tokens.",'
    b'"type":"BadRequestError","param":null,"code":400}\n\n',
    "dashscope": b'data: {"code":"InvalidApiKey","message":"Invalid API-key provided.","request_id":"1"}\n\n',
    "event": b"event: error\ndata: overloaded\n\n",
    "bad_choices": b'data: {"choices": 5}\n\n',
}


@dataclass(frozen=True)
class Frames:
    """`head` before the first token (role, reasoning), then one frame a token, then `tail` with finish and usage."""

    head: tuple[bytes, ...]
    content: tuple[bytes, ...]
    tail: tuple[bytes, ...]


def numbered_echo(message: str, number: int) -> str:
    """Return the text that a numbered echo says in answer to the request of that number, in pieces of 8."""
    mark = f"{number % 10_000:04d}"
    return "".join(mark + message[start : start + 4] for start in range(0, len(message), 4))


def pieces_of(scenario: Scenario, message: str) -> list[str]:
    """Return the answer as its tokens; joined they are the text."""
    if scenario.text == "echo":
        return [message[start : start + 8] for start in range(0, len(message), 8)] or ["-"]
    if scenario.text in {"zh", "emoji"}:
        alphabet = _ZH if scenario.text == "zh" else _EMOJI
        return [alphabet[number % len(alphabet)] for number in range(scenario.tokens)]
    return [f"token {number} " for number in range(1, scenario.tokens + 1)]


def answer_text(scenario: Scenario, message: str = "") -> str:
    """Return the whole text that an uncut answer has."""
    return "".join(pieces_of(scenario, message))


@functools.lru_cache(maxsize=256)
def build_frames(scenario: Scenario, model: str, echoed: str, prompt_tokens: int, wants_usage: bool) -> Frames:
    """Return the frames of an answer."""
    return _Builder(scenario, model, prompt_tokens, wants_usage).build(pieces_of(scenario, echoed))


def encode(payload: str, *, crlf: bool = False) -> bytes:
    """Return one server-sent event."""
    end = "\r\n" if crlf else "\n"
    return f"data: {payload}{end}{end}".encode()


def error_frame(code: str) -> bytes:
    """Return the frame of a failure in the middle of an answer."""
    error = {"message": "it broke at https://upstream.test/v1", "type": code, "code": code, "param": None}
    return ERRORS.get(code) or encode(json.dumps({"error": error}))


class _Builder:
    def __init__(self, scenario: Scenario, model: str, prompt_tokens: int, wants_usage: bool) -> None:
        self.scenario = scenario
        self.model = model
        self.prompt_tokens = prompt_tokens
        self.wants_usage = wants_usage
        self.said = ""

    def build(self, pieces: list[str]) -> Frames:
        on_first = self.usage(0) if self.scenario.usage == "first" and self.wants_usage else None
        head = [self.chunk({"role": "assistant", "content": ""}, usage=on_first)]
        if self.scenario.byte_order_mark:
            head = []
        if self.scenario.empty_choices:
            head.insert(0, self.chunk(None))
        head += [
            self.chunk({self.scenario.reasoning_field: f"thought {number} "})
            for number in range(1, self.scenario.reasoning + 1)
        ]
        if self.scenario.tools:
            calls = [self.chunk({"content": None} | call) for call in self.calls()]
            return Frames(tuple(head), tuple(calls), tuple(self.tail(len(calls))))
        content = [
            self.chunk(self.delta(piece), usage=self.running(number, is_last=number == len(pieces)))
            for number, piece in enumerate(pieces, start=1)
        ]
        if self.scenario.comments:
            content = [b": ping\n\nid: 7\nevent: ping\n\ndata: ping\n\n" + frame for frame in content]
        if self.scenario.byte_order_mark:
            content[0] = "\ufeff".encode() + content[0]
        return Frames(tuple(head), tuple(content), tuple(self.tail(len(pieces))))

    def calls(self) -> list[dict[str, Any]]:
        if self.scenario.tools == "function_call":
            return function_call_deltas()
        return [{"tool_calls": call} for call in deltas_of(self.scenario.tools)]

    def delta(self, piece: str) -> dict[str, Any]:
        if self.scenario.refusal:
            return {"content": None, "refusal": piece}
        thought = {self.scenario.reasoning_field: "hm "} if self.scenario.beside else {}
        return thought | {"content": [{"type": "text", "text": piece}] if self.scenario.content == "list" else piece}

    def tail(self, count: int) -> list[bytes]:
        frames = []
        kind = self.scenario.usage if self.wants_usage else "none"
        if kind == "choice":
            frames.append(self.chunk({}, finish=self.scenario.finish, in_choice={"usage": self.usage(count)}))
        elif self.scenario.finish != "none":
            on_last = self.usage(count) if kind in {"last", "running"} else None
            frames.append(self.chunk({}, finish=self.scenario.finish, usage=on_last))
        if kind == "own":
            frames.append(self.chunk(None, usage=self.usage(count)))
        elif kind == "zero":
            frames.append(self.chunk(None, usage=self.usage(0) | {"prompt_tokens": 0, "total_tokens": 0}))
        elif kind == "huge":
            frames.append(self.chunk(None, usage=self.usage(count) | {"prompt_tokens": 3 * 10**9}))
        elif kind == "after":
            frames.append(self.chunk({}, usage=self.usage(count)))
        if not self.scenario.no_done:
            frames.append(encode("[DONE]", crlf=self.scenario.crlf))
        return frames

    def running(self, count: int, *, is_last: bool) -> dict[str, Any] | None:
        kind = self.scenario.usage if self.wants_usage else "none"
        return self.usage(count) if kind == "running" or (kind == "content" and is_last) else None

    def usage(self, count: int) -> dict[str, Any]:
        completion = count + self.scenario.reasoning
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": completion,
            "total_tokens": self.prompt_tokens + completion,
            "prompt_tokens_details": {"cached_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": self.scenario.reasoning},
        }

    def chunk(
        self,
        delta: dict[str, Any] | None,
        *,
        finish: str | None = None,
        usage: dict[str, Any] | None = None,
        in_choice: dict[str, Any] | None = None,
    ) -> bytes:
        index = "0" if self.scenario.text_index else 0
        choice = {"index": index, **self.said_as(delta or {}), "finish_reason": finish, **(in_choice or {})}
        payload: dict[str, Any] = {
            "id": "chatcmpl-scripted",
            "object": "chat.completion.chunk",
            "created": 1700000000,
            "model": self.model,
            "choices": [] if delta is None else [choice],
        }
        if usage is not None or self.scenario.usage not in {"none", "last"}:
            payload["usage"] = usage
        return encode(json.dumps(payload, ensure_ascii=False), crlf=self.scenario.crlf)

    def said_as(self, delta: dict[str, Any]) -> dict[str, Any]:
        form = self.scenario.content
        if form == "message":
            return {"message": delta}
        if form == "legacy":
            return {"text": delta.get("content", "")}
        if form == "both":
            self.said += delta.get("content", "")
            return {"delta": delta, "message": {"role": "assistant", "content": self.said}}
        return {"delta": delta}
