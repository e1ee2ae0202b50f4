"""One response's body, read until the provider has finished, gone silent or broken off.

Called by openai_client.py and normalising_transport.py for each attempt; the reader of chunks says what the bytes mean,
this says how long to wait for the next ones.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass

import anyio
import httpx2

from chat.llm.chunks import ChunkReader
from chat.llm.failures import broken_stream
from chat.llm.port import ModelBadResponse, ModelCut, ModelError, ModelEvent, ModelTimedOut, StreamEnded
from chat.llm.silence import SilenceWatch
from chat.llm.sse_decoder import EventTooLong, ServerEvent, SseDecoder


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long to wait for the provider's next word, by what it has said already."""

    # Between two chunks, and to the first. Pings do not count: a proxy may ping for ever before a dead model.
    silence_seconds: float
    # How long usage may trail the finish reason. The answer is whole by then: longer only delays its end.
    usage_seconds: float
    # How long the body may stay open after [DONE]. Later than this, the connection is given up instead of kept.
    drain_seconds: float


class AnswerBody:
    """Reads one body. Closes the response whatever happens, so that an abandoned call costs no more."""

    def __init__(self, response: httpx2.Response, patience: Patience) -> None:
        self._response = response
        self._patience = patience
        self._decoder = SseDecoder()
        self._reader = ChunkReader()

    @property
    def first_chunk(self) -> Mapping[str, object]:
        """The first chunk that came, empty before it: it names the answer and the model."""
        return self._reader.first_chunk

    async def events(self) -> AsyncGenerator[ModelEvent, None]:
        """
        Yield the port's events; StreamEnded last.

        Raises: ModelTimedOut, ModelCut, ModelBadResponse or the provider's own failure. Not after the finish reason:
                the answer is whole then, and a broken end takes nothing away from it.
        """
        clock = asyncio.get_running_loop().time
        heard_at, progress = clock(), self._reader.progress
        # Unpacking and cutting the body anew is for a packed one only.
        is_packed = "content-encoding" in self._response.headers
        body = self._response.aiter_bytes() if is_packed else self._response.aiter_raw()
        watch = SilenceWatch()
        received = b"-"
        try:
            while received:
                received, server_events = await self._receive(body, watch, deadline=heard_at + self._waits())
                for server_event in server_events:
                    for event in self._reader.read(server_event):
                        yield event
                if self._reader.progress != progress:
                    heard_at, progress = clock(), self._reader.progress
        except ModelError as error:
            if not received and isinstance(error, ModelBadResponse) and not self._reader.finish_reason:
                # What cannot be read at the body's end is the half of an event.
                raise ModelCut(error.detail) from error
            if not self._reader.finish_reason:
                raise
        finally:
            watch.close()
            await self._response.aclose()
        yield self._ended()

    async def _receive(
        self, body: AsyncIterator[bytes], watch: SilenceWatch, *, deadline: float
    ) -> tuple[bytes, list[ServerEvent]]:
        """Return the next bytes and the events they complete; no bytes at the end of the body."""
        try:
            received = await watch.wait(anext(body, b""), deadline=deadline)
            return received, self._decoder.feed(received) if received else self._decoder.finish()
        except TimeoutError as error:
            raise ModelTimedOut(f"silent after {self._reader.progress} chunks") from error
        except EventTooLong as error:
            raise ModelBadResponse(str(error)) from error
        except (httpx2.HTTPError, httpx2.StreamError, anyio.EndOfStream, OSError) as error:
            raise broken_stream(error) from error

    def _waits(self) -> float:
        if self._reader.is_done:
            return self._patience.drain_seconds
        return self._patience.usage_seconds if self._reader.finish_reason else self._patience.silence_seconds

    def _ended(self) -> StreamEnded:
        if self._reader.finish_reason:
            return self._reader.ended()
        if not self._reader.progress and self._decoder.foreign_line_count:
            kind = self._response.headers.get("content-type", "none")
            raise ModelBadResponse(f"the body is no event stream (content type {kind[:60]})")
        raise ModelCut(f"ended after {self._reader.progress} chunks without a finish reason")
