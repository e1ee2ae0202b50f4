"""Every provider's way of saying the same: chunks of a chat completion, read into the port's events. Pure.

Called by answer_body.py with one decoded server-sent event after the other. Knows no connection and no clock.

What differs between providers: usage in a chunk of its own, on the last content chunk, after the finish reason, as
running totals, inside the choice, null, zero or never; no choices; content as a list of parts, as a whole message or as
the text of a completion; reasoning under three names; refusals beside content; tool calls (tool_calls.py); errors in
the middle of a 200, in an object of their own or as the chunk itself; pings as comments, events or text.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import orjson

from chat.llm.failures import upstream_error
from chat.llm.port import (
    ModelBadResponse,
    ModelEvent,
    ReasoningDelta,
    StreamEnded,
    TextDelta,
    UsageReported,
)
from chat.llm.sse_decoder import ServerEvent
from chat.llm.surrogates import SurrogateJoiner
from chat.llm.tool_calls import ToolCallAssembler

DONE = b"[DONE]"
_FINISH_REASONS_OF_FAILURE = {"error", "network_error", "insufficient_system_resource"}
_BESIDE_TEXT = ("reasoning_content", "reasoning", "refusal", "tool_calls", "function_call")
_FINISH_REASONS_BESIDE_CALLS = {"stop", "function_call"}
_FIRST_CHOICE = (0, None, "0")
# No model takes so many in one call. A report beyond it is a mistake of its maker, no column may be able to hold it,
# and charging it would block its user for the week.
MOST_TOKENS_OF_CALL = 20_000_000


class ChunkReader:
    """Reads the chunks of one call and remembers whether, and how, the provider finished."""

    def __init__(self) -> None:
        self.finish_reason = ""
        self.is_done = False
        self.progress = 0  # rises with every event that is no ping
        self.first_chunk: Mapping[str, Any] = {}  # names the answer and the model
        self._usage: UsageReported | None = None
        self._text = SurrogateJoiner()
        self._tool_calls = ToolCallAssembler()
        self._has_deltas = False

    def read(self, event: ServerEvent) -> Iterable[ModelEvent]:
        """
        Return what this event says; nothing for a ping.

        Raises: ModelBadResponse for JSON that is broken or no chunk; a ModelError by kind for the provider's own error.
                While the result is read, too: what was said before the failure in the same chunk comes first.
        """
        if event.data.startswith(DONE):
            self.is_done = True
            self.progress += 1
            return ()
        chunk = _decode(event.data)
        if event.name == "error":
            raise upstream_error(_find_error(chunk or {}) or chunk or event.data.decode("utf-8", "replace"))
        if chunk is None:
            return ()
        if error := _find_error(chunk):
            raise upstream_error(error)
        if not self.progress:
            self.first_chunk = chunk
        self.progress += 1
        if plain := _plain_text(chunk):
            self._has_deltas = True
            text = self._text.feed(plain)
            return (TextDelta(text),) if text else ()
        return self._read_chunk(chunk)

    def ended(self) -> StreamEnded:
        """Return how the provider finished. With tool calls, `stop` reads `tool_calls`, as most providers say it."""
        calls = self._tool_calls.calls()
        if calls and self.finish_reason in _FINISH_REASONS_BESIDE_CALLS:
            return StreamEnded("tool_calls", calls)
        return StreamEnded(self.finish_reason, calls)

    def _read_chunk(self, chunk: Mapping[str, Any]) -> Iterator[ModelEvent]:
        yield from self._read_choices(chunk)
        yield from self._read_usage(chunk.get("usage"))

    def _read_choices(self, chunk: Mapping[str, Any]) -> Iterator[ModelEvent]:
        choices = chunk.get("choices") or ()
        if not isinstance(choices, list | tuple):
            raise ModelBadResponse("the choices of a chunk are no list")
        for choice in choices:
            if not isinstance(choice, dict) or choice.get("index") not in _FIRST_CHOICE:
                continue
            delta = self._delta_of(choice)
            yield from self._with_whole_characters(_read_delta(delta))
            if fragments := delta.get("tool_calls"):
                yield from self._tool_calls.feed(fragments)
            elif call := delta.get("function_call"):
                yield from self._tool_calls.feed([{"function": call}])
            yield from self._read_usage(choice.get("usage"))
            if isinstance(reason := choice.get("finish_reason"), str) and reason:
                if reason in _FINISH_REASONS_OF_FAILURE:
                    raise upstream_error({"type": f"finish_reason {reason}"})
                self.finish_reason = reason

    def _delta_of(self, choice: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return what the choice adds. Beside deltas, a message or a text only says again what they said."""
        delta, message = choice.get("delta"), choice.get("message")
        if isinstance(delta, dict):
            self._has_deltas = True
            return delta
        if self._has_deltas:
            return {}
        return message if isinstance(message, dict) else {"content": choice.get("text")}

    def _with_whole_characters(self, events: Iterator[ModelEvent]) -> Iterator[ModelEvent]:
        for event in events:
            if not isinstance(event, TextDelta):
                yield event
            elif text := self._text.feed(event.text):
                yield TextDelta(text)

    def _read_usage(self, reported: object) -> Iterator[ModelEvent]:
        if not isinstance(reported, dict):
            return
        usage = _usage(reported)
        if 0 < usage.total_tokens <= MOST_TOKENS_OF_CALL and usage != self._usage:
            self._usage = usage
            yield usage


def _decode(data: bytes) -> dict[str, Any] | None:
    """Return the chunk, or None for text that is no object: some gateways ping with `data: ping`."""
    if not data.lstrip().startswith(b"{"):
        return None
    try:
        chunk: dict[str, Any] = orjson.loads(data)
    except ValueError:
        chunk = _decode_leniently(data)
    return chunk


def _find_error(chunk: Mapping[str, Any]) -> object:
    """Return the error that a chunk tells: under that name, or as the chunk itself; nothing when it is none."""
    if "choices" in chunk:
        return chunk.get("error")
    is_error = chunk.get("object") == "error" or (chunk.get("code") and chunk.get("message"))
    return chunk.get("error") or (chunk if is_error else None)


def _decode_leniently(data: bytes) -> dict[str, Any]:
    """Return the chunk, also with half a character in it or NaN, which the fast parser refuses."""
    try:
        chunk: dict[str, Any] = json.loads(data.decode("utf-8", "replace"))
    except ValueError as error:
        raise ModelBadResponse(f"a chunk of {len(data)} bytes is broken JSON") from error
    return chunk


def _plain_text(chunk: Mapping[str, Any]) -> str:
    """Return the text of a chunk that says nothing else, as nearly all do; empty when it has to be read closely."""
    try:
        (choice,) = chunk["choices"]
        delta = choice["delta"]
        text = delta["content"]
        if choice["index"] != 0 or choice.get("finish_reason") or type(text) is not str:
            return ""
        if chunk.get("usage") or choice.get("usage"):
            return ""
    except (KeyError, TypeError, ValueError, AttributeError):
        return ""
    return "" if len(delta) > 1 and any(delta.get(name) for name in _BESIDE_TEXT) else text


def _read_delta(delta: Mapping[str, Any]) -> Iterator[ModelEvent]:
    # One provider may send the same thought under two names; the first that is there counts.
    if thought := _text_of(delta.get("reasoning_content")) or _text_of(delta.get("reasoning")):
        yield ReasoningDelta(thought)
    content = delta.get("content")
    if isinstance(content, list):
        yield from _read_parts(content)
    elif text := _text_of(content):
        yield TextDelta(text)
    if refusal := _text_of(delta.get("refusal")):
        yield TextDelta(refusal)


def _read_parts(parts: list[object]) -> Iterator[ModelEvent]:
    for part in parts:
        if isinstance(part, str) and part:
            yield TextDelta(part)
        elif isinstance(part, dict):
            if thought := _joined(part.get("thinking")):
                yield ReasoningDelta(thought)
            if text := _text_of(part.get("text")) or _text_of(part.get("refusal")):
                yield TextDelta(text)


def _joined(thinking: object) -> str:
    if isinstance(thinking, list):
        return "".join(_text_of(part.get("text")) for part in thinking if isinstance(part, dict))
    return _text_of(thinking)


def _text_of(value: object) -> str:
    return value if isinstance(value, str) else ""


def _usage(reported: Mapping[str, Any]) -> UsageReported:
    prompt, completion = _count(reported, "prompt_tokens"), _count(reported, "completion_tokens")
    # Some leave the sum out; others count reasoning in the sum alone. The larger one is what they charge.
    total = max(_count(reported, "total_tokens"), prompt + completion)
    return UsageReported(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=total,
        # Parts of the sum, whatever is said of them.
        cached_tokens=min(total, _count(reported.get("prompt_tokens_details"), "cached_tokens")),
        reasoning_tokens=min(total, _count(reported.get("completion_tokens_details"), "reasoning_tokens")),
    )


def _count(counts: object, name: str) -> int:
    value = counts.get(name) if isinstance(counts, Mapping) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value or abs(value) == float("inf"):
        return 0
    return max(0, int(value))
