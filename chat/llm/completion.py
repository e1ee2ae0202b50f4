"""A whole answer from a model, read from its stream: for titles and summaries, which nobody watches being written.

Called by jobs and by the executor. Knows no provider.
"""

import asyncio
from collections.abc import Callable
from contextlib import aclosing

from chat.llm.port import (
    ChatModel,
    Completion,
    ModelError,
    ModelRequest,
    ReasoningDelta,
    StreamEnded,
    TextDelta,
    UsageReported,
)
from chat.memory.budget import estimate_prompt, estimate_text


async def complete(
    model: ChatModel, request: ModelRequest, *, on_cut: Callable[[Completion], None] = lambda _completion: None
) -> Completion:
    """
    Ask the model and return its whole answer.

    Twice:  each call asks anew and costs anew. Who is cancelled meanwhile, as by a timeout, has to pay all the same:
            `on_cut` is told what was said by then and what it is likely to cost.
    Raises: ModelError; when the provider had begun to answer, `partial` is what was said and has to be paid for.
    """
    reading = _Reading(request)
    try:
        async with aclosing(model.stream(request)) as events:
            async for event in events:
                reading.take(event)
    except asyncio.CancelledError:
        on_cut(reading.completion())
        raise
    except ModelError as error:
        error.partial = reading.completion() if reading.has_begun else None
        raise
    return reading.completion()


def estimate_usage(request: ModelRequest, *, text: str, reasoning: str = "") -> UsageReported:
    """Return what a call is likely to have cost, for a provider that does not say."""
    prompt = estimate_prompt(request.messages, system_prompt=request.system_prompt)
    thought = estimate_text(reasoning)
    completion = estimate_text(text) + thought
    return UsageReported(prompt, completion, prompt + completion, reasoning_tokens=thought)


class _Reading:
    def __init__(self, request: ModelRequest) -> None:
        self._request = request
        self._text: list[str] = []
        self._thoughts: list[str] = []
        self._reported: UsageReported | None = None
        self._finish_reason = ""

    @property
    def has_begun(self) -> bool:
        return bool(self._text or self._thoughts or self._reported)

    def take(self, event: object) -> None:
        if isinstance(event, TextDelta):
            self._text.append(event.text)
        elif isinstance(event, ReasoningDelta):
            self._thoughts.append(event.text)
        elif isinstance(event, UsageReported):
            self._reported = event
        elif isinstance(event, StreamEnded):
            self._finish_reason = event.finish_reason

    def completion(self) -> Completion:
        text = "".join(self._text)
        estimated = estimate_usage(self._request, text=text, reasoning="".join(self._thoughts))
        return Completion(
            text=text,
            usage=self._reported or estimated,
            is_estimated=self._reported is None,
            finish_reason=self._finish_reason,
        )
