"""Every provider's stream as OpenAI itself would send it, for software that reads the openai client's typed stream.

Given to `openai.AsyncOpenAI(http_client=...)`, and so to an agent library on that client. It reads the provider's body
as openai_client.py does (answer_body.py) and says it anew: tool calls under their own index and id, one usage chunk at
the end or none, [DONE]. What the typed stream would take for success raises the port's ModelError instead: a cut
answer, silence, an error in the middle, a body that is no stream. Refusals before the stream are the client's to raise.
"""

from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing

import httpx2
import orjson

from chat.llm.answer_body import AnswerBody, Patience
from chat.llm.port import (
    ModelError,
    ModelEvent,
    ReasoningDelta,
    StreamEnded,
    TextDelta,
    ToolCallDelta,
    UsageReported,
)
from smartflow.kernel.clock import utc_now

PATH = "/chat/completions"
_HEADERS_OF_THE_OLD_BODY = {"content-length", "content-encoding", "content-type", "transfer-encoding"}


class NormalisingTransport(httpx2.AsyncBaseTransport):
    """Passes everything on to another transport, and streamed chat completions back in one form."""

    def __init__(self, inner: httpx2.AsyncBaseTransport, patience: Patience) -> None:
        self._inner = inner
        self._patience = patience

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send the request; only a streamed chat completion that succeeded gets another body."""
        response = await self._inner.handle_async_request(request)
        if response.status_code != httpx2.codes.OK or not _is_streamed_completion(request):
            return response
        headers = [item for item in response.headers.multi_items() if item[0] not in _HEADERS_OF_THE_OLD_BODY]
        return httpx2.Response(
            response.status_code,
            headers=[*headers, ("content-type", "text/event-stream; charset=utf-8")],
            stream=_CanonicalStream(response, self._patience),
            extensions=response.extensions,
        )

    async def aclose(self) -> None:
        """Close the transport behind."""
        await self._inner.aclose()


def _is_streamed_completion(request: httpx2.Request) -> bool:
    if request.method != "POST" or not request.url.path.endswith(PATH):
        return False
    try:
        body = orjson.loads(request.content)
    except (ValueError, httpx2.RequestNotRead):
        return False
    return isinstance(body, dict) and body.get("stream") is True


class _CanonicalStream(httpx2.AsyncByteStream):
    def __init__(self, response: httpx2.Response, patience: Patience) -> None:
        self._response = response
        self._body = AnswerBody(response, patience)

    async def __aiter__(self) -> AsyncGenerator[bytes, None]:
        chunks = _ChunkWriter()
        try:
            async with aclosing(self._body.events()) as events:
                async for event in events:
                    for frame in chunks.write(event, self._body.first_chunk):
                        yield frame
        except ModelError:
            for frame in chunks.usage():
                yield frame  # a cut answer has to be paid for, too
            raise

    async def aclose(self) -> None:
        await self._response.aclose()


class _ChunkWriter:
    """Says the port's events as chunks."""

    def __init__(self) -> None:
        self._head: dict[str, object] = {}
        self._reported: UsageReported | None = None
        self._begun_calls: set[int] = set()

    def write(self, event: ModelEvent, first_chunk: Mapping[str, object]) -> Iterator[bytes]:
        if not self._head:
            self._head = _head(first_chunk)
            yield self._frame({"role": "assistant", "content": ""})
        match event:
            case TextDelta(text):
                yield self._frame({"content": text})
            case ReasoningDelta(text):
                yield self._frame({"reasoning_content": text})
            case ToolCallDelta():
                yield self._frame({"tool_calls": [self._call(event)]})
            case UsageReported():
                self._reported = event
            case StreamEnded(finish_reason):
                yield self._frame({}, finish_reason)
                yield from self.usage()
                yield b"data: [DONE]\n\n"

    def usage(self) -> Iterator[bytes]:
        if self._reported:
            yield _encode({**self._head, "choices": [], "usage": _usage(self._reported)})

    def _frame(self, delta: dict[str, object], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        return _encode({**self._head, "choices": [choice]})

    def _call(self, delta: ToolCallDelta) -> dict[str, object]:
        function = {"arguments": delta.arguments} | ({"name": delta.name} if delta.name else {})
        if delta.index in self._begun_calls:
            return {"index": delta.index, "function": function}
        self._begun_calls.add(delta.index)
        return {"index": delta.index, "id": delta.call_id, "type": "function", "function": function}


def _head(first_chunk: Mapping[str, object]) -> dict[str, object]:
    """Return what names the answer, in every chunk the same; the reader's types want all of it."""
    answer_id, created, model = (first_chunk.get(name) for name in ("id", "created", "model"))
    return {
        "id": answer_id if isinstance(answer_id, str) else "",
        "object": "chat.completion.chunk",
        "created": created if isinstance(created, int) else int(utc_now().timestamp()),
        "model": model if isinstance(model, str) else "",
    }


def _usage(reported: UsageReported) -> dict[str, object]:
    return {
        "prompt_tokens": reported.prompt_tokens,
        "completion_tokens": reported.completion_tokens,
        "total_tokens": reported.total_tokens,
        "prompt_tokens_details": {"cached_tokens": reported.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": reported.reasoning_tokens},
    }


def _encode(chunk: Mapping[str, object]) -> bytes:
    return b"data: %b\n\n" % orjson.dumps(chunk)
