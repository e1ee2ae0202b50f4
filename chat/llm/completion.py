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


def charged_usage(
    reported: UsageReported | None, estimated: UsageReported, *, is_final: bool
) -> tuple[UsageReported, bool]:
    """
    Return what a call is charged, and whether that is an estimate.

    A report is final when the answer ended and nothing was said after it. Any other may be of the first words only,
    and some name the prompt alone: such a report takes nothing off the estimate.
    """
    if reported is None:
        return estimated, True
    if is_final and (reported.completion_tokens or not estimated.completion_tokens):
        return reported, False
    prompt = reported.prompt_tokens or estimated.prompt_tokens
    completion = max(reported.completion_tokens, estimated.completion_tokens)
    figures = UsageReported(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=max(reported.total_tokens, prompt + completion),
        cached_tokens=reported.cached_tokens,
        reasoning_tokens=max(reported.reasoning_tokens, estimated.reasoning_tokens),
    )
    return figures, True


class _Reading:
    def __init__(self, request: ModelRequest) -> None:
        self._request = request
        self._text: list[str] = []
        self._thoughts: list[str] = []
        self._reported: UsageReported | None = None
        self._heard_before_report = 0
        self._finish_reason = ""

    @property
    def has_begun(self) -> bool:
        return bool(self._heard or self._reported)

    @property
    def _heard(self) -> int:
        return len(self._text) + len(self._thoughts)

    def take(self, event: object) -> None:
        if isinstance(event, TextDelta):
            self._text.append(event.text)
        elif isinstance(event, ReasoningDelta):
            self._thoughts.append(event.text)
        elif isinstance(event, UsageReported):
            self._reported, self._heard_before_report = event, self._heard
        elif isinstance(event, StreamEnded):
            self._finish_reason = event.finish_reason

    def completion(self) -> Completion:
        text = "".join(self._text)
        estimated = estimate_usage(self._request, text=text, reasoning="".join(self._thoughts))
        is_final = bool(self._finish_reason) and self._heard == self._heard_before_report
        usage, is_estimated = charged_usage(self._reported, estimated, is_final=is_final)
        return Completion(
            text=text,
            usage=usage,
            is_estimated=is_estimated,
            finish_reason=self._finish_reason,
        )
