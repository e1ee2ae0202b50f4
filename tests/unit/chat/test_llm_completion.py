"""A whole answer read from a model's stream, and what it cost."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from chat.contracts import HistoryMessage, Role
from chat.llm.completion import complete, estimate_usage
from chat.llm.port import (
    Completion,
    ModelCut,
    ModelError,
    ModelEvent,
    ModelRequest,
    ModelUnreachable,
    ReasoningDelta,
    StreamEnded,
    TextDelta,
    UsageReported,
)

REQUEST = ModelRequest(
    model="worker", messages=(HistoryMessage(role=Role.USER, content="明天有课吗"),), system_prompt="Be kind."
)
ESTIMATED_PROMPT = 2 + 6 + 5


class ScriptedModel:
    """Says what it is given, in turn; raises what is an error."""

    def __init__(self, *script: ModelEvent | ModelError) -> None:
        self.script = script
        self.is_closed = False

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        try:
            for item in self.script:
                await asyncio.sleep(0)
                if isinstance(item, ModelError):
                    raise item
                yield item
        finally:
            self.is_closed = True

    async def aclose(self) -> None:
        """Nothing to give back."""


async def test_complete_joins_the_text_and_takes_the_last_usage() -> None:
    model = ScriptedModel(
        ReasoningDelta("hm"),
        TextDelta("A "),
        UsageReported(5, 1, 6),
        TextDelta("title"),
        UsageReported(5, 2, 7),
        StreamEnded("stop"),
    )
    assert await complete(model, REQUEST) == Completion(
        text="A title", usage=UsageReported(5, 2, 7), is_estimated=False, finish_reason="stop"
    )
    assert model.is_closed


async def test_complete_estimates_usage_that_is_not_reported() -> None:
    model = ScriptedModel(ReasoningDelta("想一想"), TextDelta("有课 at nine"), StreamEnded("stop"))
    completion = await complete(model, REQUEST)
    assert completion.is_estimated
    assert completion.usage == UsageReported(
        ESTIMATED_PROMPT, 2 + 2 + 3, ESTIMATED_PROMPT + 2 + 2 + 3, reasoning_tokens=3
    )


async def test_complete_raises_and_tells_what_has_to_be_paid_for_when_the_answer_breaks() -> None:
    model = ScriptedModel(TextDelta("half"), ModelCut("cut"))
    with pytest.raises(ModelCut) as raised:
        await complete(model, REQUEST)
    assert raised.value.partial == Completion(
        text="half", usage=UsageReported(ESTIMATED_PROMPT, 1, ESTIMATED_PROMPT + 1), is_estimated=True
    )
    assert model.is_closed


@pytest.mark.parametrize(
    ("script", "usage"),
    [
        pytest.param([UsageReported(11, 0, 11)], (11, 1000, 1011), id="of the prompt alone"),
        pytest.param([UsageReported(11, 1, 12), TextDelta("more")], (11, 1001, 1012), id="before the last word"),
        pytest.param([UsageReported(0, 0, 11)], (ESTIMATED_PROMPT, 1000, ESTIMATED_PROMPT + 1000), id="a sum alone"),
        pytest.param([UsageReported(11, 0, 9000)], (11, 1000, 9000), id="a sum with more in it"),
    ],
)
async def test_complete_takes_an_incomplete_report_for_no_less_than_the_estimate(
    script: list[ModelEvent], usage: tuple[int, int, int]
) -> None:
    completion = await complete(ScriptedModel(TextDelta("word" * 1000), *script, StreamEnded("stop")), REQUEST)
    assert (completion.usage, completion.is_estimated) == (UsageReported(*usage), True)


@pytest.mark.parametrize("completion_tokens", [1, 90])
async def test_complete_charges_the_larger_of_report_and_estimate_when_the_answer_breaks(
    completion_tokens: int,
) -> None:
    report = UsageReported(11, completion_tokens, 11 + completion_tokens, cached_tokens=3)
    with pytest.raises(ModelCut) as raised:
        await complete(ScriptedModel(TextDelta("word" * 40), report, ModelCut("cut")), REQUEST)
    assert raised.value.partial is not None
    assert raised.value.partial.is_estimated
    most = max(40, completion_tokens)
    assert raised.value.partial.usage == UsageReported(11, most, 11 + most, cached_tokens=3)


async def test_complete_believes_a_report_of_an_answer_without_words() -> None:
    completion = await complete(ScriptedModel(UsageReported(11, 0, 11), StreamEnded("stop")), REQUEST)
    assert (completion.usage, completion.is_estimated) == (UsageReported(11, 0, 11), False)


async def test_complete_owes_nothing_when_nothing_was_said() -> None:
    with pytest.raises(ModelUnreachable) as raised:
        await complete(ScriptedModel(ModelUnreachable()), REQUEST)
    assert raised.value.partial is None


def test_estimate_usage_of_an_empty_answer_is_its_prompt() -> None:
    assert estimate_usage(REQUEST, text="") == UsageReported(ESTIMATED_PROMPT, 0, ESTIMATED_PROMPT)
