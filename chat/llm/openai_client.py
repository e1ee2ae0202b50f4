"""The model behind any OpenAI-compatible address, through the openai client: one streamed chat completion a call.

Called by an executor through the port. Reads the body itself (answer_body.py), since the client's typed stream takes
a cut answer for a finished one. All retries are here and happen before the first token only: afterwards the reader
has seen text that a second call would contradict.
"""

import asyncio
import logging
import secrets
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import cast
from weakref import WeakKeyDictionary

import httpx2
import openai
import orjson

from chat.llm.answer_body import AnswerBody, Patience
from chat.llm.connections import Connections
from chat.llm.failures import translated
from chat.llm.port import (
    ModelError,
    ModelEvent,
    ModelRejectedRequest,
    ModelRequest,
    ModelTimedOut,
    UsageReported,
)

logger = logging.getLogger(__name__)

# The field has no common name; a provider refuses one that it does not know, so none is sent unless configured.
THINKING_FIELDS: Mapping[str, tuple[object, object]] = {
    "thinking": ({"type": "enabled"}, {"type": "disabled"}),
    "enable_thinking": (True, False),
    "reasoning_effort": ("medium", "minimal"),
}
_RANDOM = secrets.SystemRandom()


@dataclass(frozen=True, kw_only=True)
class OpenAIConfig:
    """All that the client needs to know; made from settings in factory.py."""

    base_url: str  # empty: the openai client's own default
    api_key: str = field(repr=False)
    models: Mapping[str, str]  # alias -> the provider's name
    # OpenAI's thinking models take max_completion_tokens alone, most others know max_tokens alone.
    max_tokens_field: str = "max_tokens"
    # Of an answer, its thoughts included; 0: as many as the model likes. More than it can give, and it may refuse.
    max_answer_tokens: int = 0
    thinking_field: str = ""  # how this provider is told to think: one of THINKING_FIELDS, or not at all
    connect_timeout_seconds: float = 5.0
    silence_timeout_seconds: float = 60.0
    usage_timeout_seconds: float = 3.0
    drain_timeout_seconds: float = 0.1
    retries: int = 2
    backoff_seconds: float = 0.5
    max_backoff_seconds: float = 8.0
    # A longer wait than this is told to the student at once instead of being sat through.
    max_retry_after_seconds: float = 15.0
    # Below the number of live runs, some of them wait for a connection and fail as unreachable.
    max_connections: int = 1000


class OpenAIChatModel:
    """The ChatModel of a real provider."""

    def __init__(self, config: OpenAIConfig) -> None:
        self._config = config
        self._patience = Patience(
            silence_seconds=config.silence_timeout_seconds,
            usage_seconds=config.usage_timeout_seconds,
            drain_seconds=config.drain_timeout_seconds,
        )
        # A pool belongs to the loop it was opened on; used from another one it hangs.
        self._connections: WeakKeyDictionary[asyncio.AbstractEventLoop, Connections] = WeakKeyDictionary()

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        """See ChatModel.stream."""
        attempt = 1
        while True:
            has_spoken = False
            early_report: UsageReported | None = None
            try:
                async with aclosing(self._attempt(request)) as events:
                    async for event in events:
                        has_spoken = has_spoken or not isinstance(event, UsageReported)
                        if isinstance(event, UsageReported) and not has_spoken:
                            early_report = event  # of an attempt that may come to nothing
                            continue
                        if early_report is not None:
                            yield early_report
                            early_report = None
                        yield event
                return
            except ModelError as error:
                wait_seconds = None if has_spoken else self._wait_before_retry(error, attempt=attempt)
                if wait_seconds is None:
                    if early_report is not None:
                        yield early_report
                    raise
                logger.info(
                    "A model call failed before its first token and is tried again run=%s code=%s attempt=%d "
                    "wait_seconds=%.2f detail=%s",
                    request.run_id,
                    error.code,
                    attempt,
                    wait_seconds,
                    error.detail,
                )
            await asyncio.sleep(wait_seconds)
            attempt += 1

    async def aclose(self) -> None:
        """Close this loop's connections; calls under way end as cut."""
        connections = self._connections.pop(asyncio.get_running_loop(), None)
        if connections is not None:
            await connections.aclose()

    async def _attempt(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        with self._connections_here().client() as client:
            body = AnswerBody(await self._open(client, request), self._patience)
            async with aclosing(body.events()) as events:
                async for event in events:
                    yield event

    async def _open(self, client: openai.AsyncOpenAI, request: ModelRequest) -> httpx2.Response:
        """Send the request and return the response, its body unread and open."""
        name = self._config.models.get(request.model)
        if name is None:
            raise ModelRejectedRequest(f"no model stands behind the alias {request.model[:40]!r}")
        try:
            async with asyncio.timeout(self._config.connect_timeout_seconds + self._config.silence_timeout_seconds):
                # Not chat.completions.create: it walks through every message by its type hints, which takes longer
                # than all else in a call, and longer still with each message of the history.
                response = await client.post(
                    "/chat/completions",
                    cast_to=httpx2.Response,
                    content=orjson.dumps(self._wire_body(request, name)),
                    stream=True,
                    stream_cls=openai.AsyncStream[object],
                )
        except TimeoutError as error:
            raise ModelTimedOut("silent after the request was sent") from error
        except (openai.APIError, httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            raise translated(error) from error
        return cast(httpx2.Response, response)

    def _wire_body(self, request: ModelRequest, name: str) -> dict[str, object]:
        config = self._config
        body: dict[str, object] = {
            "model": name,
            "messages": _wire_messages(request),
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if most := config.max_answer_tokens if request.max_output_tokens is None else request.max_output_tokens:
            body[config.max_tokens_field] = most
        if config.thinking_field and request.thinking != "auto":
            enabled, disabled = THINKING_FIELDS[config.thinking_field]
            body[config.thinking_field] = enabled if request.thinking == "true" else disabled
        return body

    def _connections_here(self) -> Connections:
        loop = asyncio.get_running_loop()
        if loop not in self._connections:
            config = self._config
            self._connections[loop] = Connections(
                api_key=config.api_key,
                base_url=config.base_url,
                connect_timeout_seconds=config.connect_timeout_seconds,
                max_connections=config.max_connections,
            )
        return self._connections[loop]

    def _wait_before_retry(self, error: ModelError, *, attempt: int) -> float | None:
        """Return the seconds to wait, or None when there is no further attempt."""
        config = self._config
        if not error.is_retryable or attempt > config.retries:
            return None
        if error.retry_after_seconds is not None:
            is_bearable = error.retry_after_seconds <= config.max_retry_after_seconds
            # Many runs are refused at the same moment; the part on top keeps them from coming back at the same one.
            return error.retry_after_seconds + _RANDOM.uniform(0, config.backoff_seconds) if is_bearable else None
        backoff: float = min(config.max_backoff_seconds, config.backoff_seconds * 2 ** (attempt - 1))
        return backoff * _RANDOM.uniform(0.5, 1.0)


def _wire_messages(request: ModelRequest) -> list[dict[str, str]]:
    messages = [{"role": str(message.role), "content": message.content} for message in request.messages]
    if request.system_prompt:
        messages.insert(0, {"role": "system", "content": request.system_prompt})
    return messages
