"""The client of a real provider against a scripted one, over real HTTP: every habit and every way to break."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from chat.contracts import HistoryMessage, Role
from chat.llm.openai_client import OpenAIChatModel, OpenAIConfig
from chat.llm.port import (
    ModelBadResponse,
    ModelContextTooLong,
    ModelCut,
    ModelError,
    ModelEvent,
    ModelRateLimited,
    ModelRefusedCredentials,
    ModelRejectedRequest,
    ModelRequest,
    ModelServerError,
    ModelTimedOut,
    ModelUnreachable,
    ReasoningDelta,
    StreamEnded,
    TextDelta,
    UsageReported,
)
from tests.scripted_model import ScriptedModel, running_scripted_model
from tests.scripted_model.frames import answer_text
from tests.scripted_model.scenario import read_scenario

API_KEY = "sk-test-abcdefghijklmnop"
MESSAGE = "What is on tomorrow?"


@pytest.fixture(scope="module")
def server() -> Iterator[ScriptedModel]:
    with running_scripted_model() as running:
        yield running


@pytest.fixture
def scripted(server: ScriptedModel) -> ScriptedModel:
    server.reset()
    return server


@asynccontextmanager
async def connected(base_url: str, scenario: str, **options: Any) -> AsyncIterator[OpenAIChatModel]:
    quick = {"silence_timeout_seconds": 1.0, "usage_timeout_seconds": 0.2, "backoff_seconds": 0.01}
    name = f"scripted:{scenario}" if scenario else "scripted"
    config = OpenAIConfig(base_url=base_url, api_key=API_KEY, models={"worker": name}, **quick | options)
    model = OpenAIChatModel(config)
    try:
        yield model
    finally:
        await model.aclose()


def asking(message: str = MESSAGE, **fields: Any) -> ModelRequest:
    said = HistoryMessage(role=Role.USER, content=message)
    return ModelRequest(**{"model": "worker", "messages": (said,), "run_id": "run-1"} | fields)


async def collect(model: OpenAIChatModel, request: ModelRequest | None = None) -> list[ModelEvent]:
    return [event async for event in model.stream(request or asking())]


async def collect_until_error(model: OpenAIChatModel) -> tuple[list[ModelEvent], ModelError]:
    events: list[ModelEvent] = []
    try:
        async with asyncio.timeout(20):
            async for event in model.stream(asking()):
                events.append(event)
    except ModelError as error:
        return events, error
    pytest.fail(f"the stream ended without an error: {events[-3:]}")


def text_of(events: list[ModelEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def whole_text(scenario: str) -> str:
    return answer_text(read_scenario(f"scripted:{scenario}", ""))


# --- what is sent -----------------------------------------------------------------------------------------------------
async def test_stream_sends_model_name_history_system_prompt_and_asks_for_usage(scripted: ScriptedModel) -> None:
    messages = (
        HistoryMessage(role=Role.USER, content="早上好"),
        HistoryMessage(role=Role.ASSISTANT, content="早！"),
        HistoryMessage(role=Role.USER, content=MESSAGE),
    )
    async with connected(scripted.base_url, "") as model:
        await collect(model, asking(messages=messages, system_prompt="Be kind."))
    seen = scripted.seen()
    assert seen["bodies"] == [
        {
            "model": "scripted",
            "stream": True,
            "stream_options": {"include_usage": True},
            "messages": [
                {"role": "system", "content": "Be kind."},
                {"role": "user", "content": "早上好"},
                {"role": "assistant", "content": "早！"},
                {"role": "user", "content": MESSAGE},
            ],
        }
    ]
    assert seen["headers"][0]["authorization"] == f"Bearer {API_KEY}"


@pytest.mark.parametrize(
    ("field", "thinking", "sent"),
    [
        ("", "true", {}),
        ("thinking", "auto", {}),
        ("thinking", "true", {"thinking": {"type": "enabled"}}),
        ("thinking", "false", {"thinking": {"type": "disabled"}}),
        ("enable_thinking", "true", {"enable_thinking": True}),
        ("reasoning_effort", "false", {"reasoning_effort": "minimal"}),
    ],
)
async def test_stream_tells_the_provider_to_think_in_its_own_field(
    scripted: ScriptedModel, field: str, thinking: str, sent: dict[str, Any]
) -> None:
    async with connected(scripted.base_url, "tokens=1", thinking_field=field) as model:
        await collect(model, asking(thinking=thinking))
    body = scripted.seen()["bodies"][0]
    assert {name: body[name] for name in body if name not in {"model", "stream", "stream_options", "messages"}} == sent


@pytest.mark.parametrize(
    ("options", "name"),
    [({}, "max_tokens"), ({"max_tokens_field": "max_completion_tokens"}, "max_completion_tokens")],
)
async def test_stream_bounds_the_answer_in_the_providers_own_field(
    scripted: ScriptedModel, options: dict[str, str], name: str
) -> None:
    async with connected(scripted.base_url, "tokens=1", **options) as model:
        await collect(model, asking(max_output_tokens=64))
        await collect(model, asking())
    bounded, unbounded = scripted.seen()["bodies"]
    assert bounded == unbounded | {name: 64}


async def test_stream_bounds_every_answer_where_that_is_configured(scripted: ScriptedModel) -> None:
    async with connected(scripted.base_url, "tokens=1", max_answer_tokens=8000) as model:
        await collect(model, asking())
        await collect(model, asking(purpose="title", max_output_tokens=40))
    assert [body["max_tokens"] for body in scripted.seen()["bodies"]] == [8000, 40]


async def test_stream_refuses_an_unknown_alias_without_a_call(scripted: ScriptedModel) -> None:
    async with connected(scripted.base_url, "") as model:
        with pytest.raises(ModelRejectedRequest):
            await collect(model, asking(model="nobody"))
    assert scripted.seen()["requests"] == 0


# --- whole answers in every provider's form ---------------------------------------------------------------------------
@pytest.mark.parametrize(
    "scenario",
    [
        "tokens=20",
        "text=zh,tokens=50",
        "text=emoji,tokens=50",
        "text=emoji,tokens=50,split=3",
        "text=emoji,tokens=50,crlf,split=1",
        "comments",
        "crlf,comments",
        "empty_choices",
        "content=list",
        "refusal",
        "no_done",
        "hold",
        "stall_end",
        "first_ms=200",
        "delay_ms=10",
        "first_ms=300,ping_ms=50",
    ],
)
async def test_stream_gives_the_whole_text_and_ends_once(scripted: ScriptedModel, scenario: str) -> None:
    async with connected(scripted.base_url, scenario) as model:
        events = await collect(model)
    assert text_of(events) == whole_text(scenario)
    assert [event for event in events if isinstance(event, StreamEnded)] == [events[-1]] == [StreamEnded("stop")]


@pytest.mark.parametrize("reason", ["length", "content_filter", "tool_calls"])
async def test_stream_passes_the_finish_reason_on(scripted: ScriptedModel, reason: str) -> None:
    async with connected(scripted.base_url, f"finish={reason}") as model:
        assert (await collect(model))[-1] == StreamEnded(reason)


@pytest.mark.parametrize("form", ["own", "last", "content", "after", "running"])
async def test_stream_reports_usage_wherever_it_stands(scripted: ScriptedModel, form: str) -> None:
    async with connected(scripted.base_url, f"tokens=7,usage={form}") as model:
        events = await collect(model)
    reported = [event for event in events if isinstance(event, UsageReported)]
    prompt = len(MESSAGE)
    assert reported[-1] == UsageReported(prompt, 7, prompt + 7)
    assert len(reported) == (7 if form == "running" else 1)


@pytest.mark.parametrize("form", ["none", "null", "zero"])
async def test_stream_reports_no_usage_when_the_provider_gave_none(scripted: ScriptedModel, form: str) -> None:
    async with connected(scripted.base_url, f"usage={form}") as model:
        events = await collect(model)
    assert not [event for event in events if isinstance(event, UsageReported)]
    assert text_of(events) == whole_text("")


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
async def test_stream_keeps_reasoning_out_of_the_answer(scripted: ScriptedModel, field: str) -> None:
    async with connected(scripted.base_url, f"reasoning=3,reasoning_field={field}") as model:
        events = await collect(model)
    assert [event.text for event in events if isinstance(event, ReasoningDelta)] == [
        "thought 1 ",
        "thought 2 ",
        "thought 3 ",
    ]
    assert text_of(events) == whole_text("")
    assert UsageReported(len(MESSAGE), 23, len(MESSAGE) + 23, reasoning_tokens=3) in events


async def test_stream_carries_a_long_message_both_ways(scripted: ScriptedModel) -> None:
    message = "课" * 10_000 + "👍🏽 end"
    async with connected(scripted.base_url, "text=echo") as model:
        assert text_of(await collect(model, asking(message))) == message


async def test_stream_gives_tokens_as_they_come(scripted: ScriptedModel) -> None:
    loop = asyncio.get_running_loop()
    async with connected(scripted.base_url, "tokens=5,delay_ms=100") as model:
        started = loop.time()
        arrivals = [loop.time() - started async for event in model.stream(asking()) if isinstance(event, TextDelta)]
    assert arrivals[-1] - arrivals[0] > 0.3


# --- answers that break -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("scenario", "kind"),
    [
        ("cut", ModelCut),
        ("quiet_cut", ModelCut),
        ("quiet_cut,no_done", ModelCut),
        ("stall", ModelTimedOut),
        ("stall,ping_ms=100", ModelTimedOut),
        ("error=server_error", ModelServerError),
        ("error=rate_limit_exceeded", ModelRateLimited),
        ("error=context_length_exceeded", ModelContextTooLong),
    ],
)
async def test_stream_keeps_what_was_said_and_raises_when_the_answer_breaks(
    scripted: ScriptedModel, scenario: str, kind: type[ModelError]
) -> None:
    async with connected(scripted.base_url, f"{scenario},after=5") as model:
        events, error = await collect_until_error(model)
    assert type(error) is kind
    assert text_of(events) == "token 1 token 2 token 3 token 4 token 5 "
    assert not [event for event in events if isinstance(event, StreamEnded)]
    assert scripted.seen()["requests"] == 1  # text was shown, so no second call


async def test_stream_takes_no_finish_reason_for_a_cut_even_when_all_else_is_there(scripted: ScriptedModel) -> None:
    async with connected(scripted.base_url, "finish=none") as model:
        events, error = await collect_until_error(model)
    assert type(error) is ModelCut
    assert text_of(events) == whole_text("")


async def test_stream_keeps_running_totals_of_a_cut_answer(scripted: ScriptedModel) -> None:
    async with connected(scripted.base_url, "cut,after=5,usage=running") as model:
        events, _ = await collect_until_error(model)
    assert events[-1] == UsageReported(len(MESSAGE), 5, len(MESSAGE) + 5)


@pytest.mark.parametrize("body", ["html", "json"])
async def test_stream_raises_when_the_body_is_no_event_stream(scripted: ScriptedModel, body: str) -> None:
    async with connected(scripted.base_url, f"not_sse={body}") as model:
        events, error = await collect_until_error(model)
    assert (events, type(error)) == ([], ModelBadResponse)
    assert scripted.seen()["requests"] == 1


@pytest.mark.parametrize(
    ("scenario", "kind"),
    [
        ("status=401", ModelRefusedCredentials),
        ("status=429,code=insufficient_quota", ModelRefusedCredentials),
        ("status=400,code=context_length_exceeded", ModelContextTooLong),
        ("status=404", ModelRejectedRequest),
        ("first_ms=5000", ModelTimedOut),
        ("error=vllm,after=0", ModelContextTooLong),
        ("error=dashscope,after=0", ModelRefusedCredentials),
        ("error=bad_choices,after=0", ModelBadResponse),
    ],
)
async def test_stream_does_not_repeat_what_cannot_succeed(
    scripted: ScriptedModel, scenario: str, kind: type[ModelError]
) -> None:
    async with connected(scripted.base_url, scenario) as model:
        _, error = await collect_until_error(model)
    assert type(error) is kind
    assert scripted.seen()["requests"] == 1


# --- retries before the first token -----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "scenario",
    ["status=429,times=2,retry_after=0", "status=429,times=2", "status=500,times=2", "status=503,times=1"],
)
async def test_stream_succeeds_when_a_retry_does(scripted: ScriptedModel, scenario: str) -> None:
    async with connected(scripted.base_url, scenario) as model:
        assert text_of(await collect(model)) == whole_text("")
    assert scripted.seen()["requests"] == read_scenario(f"x:{scenario}", "").times + 1


@pytest.mark.parametrize(
    ("scenario", "kind"),
    [
        ("status=500", ModelServerError),
        ("status=429", ModelRateLimited),
        ("cut,after=0", ModelCut),
        ("quiet_cut,after=0", ModelCut),
        ("half=40,after=0", ModelCut),
        ("error=server_error,after=0", ModelServerError),
        ("error=event,after=0", ModelServerError),
    ],
)
@pytest.mark.parametrize("retries", [0, 2])
async def test_stream_gives_up_after_the_configured_retries(
    scripted: ScriptedModel, scenario: str, kind: type[ModelError], retries: int
) -> None:
    async with connected(scripted.base_url, scenario, retries=retries) as model:
        events, error = await collect_until_error(model)
    assert (events, type(error)) == ([], kind)
    assert scripted.seen()["requests"] == retries + 1


class _Failing(OpenAIChatModel):
    """A client whose attempts go as the test says."""

    def __init__(self, base_url: str, *attempts: list[ModelEvent | ModelError]) -> None:
        super().__init__(OpenAIConfig(base_url=base_url, api_key=API_KEY, models={}, backoff_seconds=0.01))
        self.attempts = iter(attempts)

    async def _attempt(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        for item in next(self.attempts):
            if isinstance(item, ModelError):
                raise item
            yield item


async def test_stream_forgets_what_a_failed_attempt_reported(scripted: ScriptedModel) -> None:
    report, whole = UsageReported(11, 0, 11), [TextDelta("Hello"), StreamEnded("stop")]
    model = _Failing(scripted.base_url, [report, ModelCut("cut")], [*whole])
    assert await collect(model) == whole


async def test_stream_reports_what_was_reported_before_the_first_word(scripted: ScriptedModel) -> None:
    report = UsageReported(11, 0, 11)
    for rest in ([TextDelta("Hello"), StreamEnded("stop")], [StreamEnded("stop")]):
        assert await collect(_Failing(scripted.base_url, [report, *rest])) == [report, *rest]
    events, error = await collect_until_error(_Failing(scripted.base_url, [report, ModelTimedOut("silent")]))
    assert (events, type(error)) == ([report], ModelTimedOut)


async def test_stream_does_not_retry_after_reasoning_was_given(scripted: ScriptedModel) -> None:
    async with connected(scripted.base_url, "reasoning=2,cut,after=0") as model:
        events, error = await collect_until_error(model)
    assert type(error) is ModelCut
    assert [type(event) for event in events] == [ReasoningDelta, ReasoningDelta]
    assert scripted.seen()["requests"] == 1


async def test_stream_does_not_retry_after_a_tool_call_was_begun(scripted: ScriptedModel) -> None:
    async with connected(scripted.base_url, "tools=own,cut,after=2") as model:
        events, error = await collect_until_error(model)
    assert type(error) is ModelCut
    assert [(event.name, event.arguments) for event in events] == [("get_weather", ""), ("", '{"cit')]
    assert scripted.seen()["requests"] == 1


async def test_stream_waits_as_long_as_the_provider_asks(scripted: ScriptedModel) -> None:
    loop = asyncio.get_running_loop()
    async with connected(scripted.base_url, "status=429,times=1,retry_after=1") as model:
        started = loop.time()
        await collect(model)
    assert loop.time() - started >= 1.0


async def test_stream_tells_the_wait_instead_of_sitting_through_a_long_one(scripted: ScriptedModel) -> None:
    async with connected(scripted.base_url, "status=429,retry_after=60") as model:
        _, error = await collect_until_error(model)
    assert type(error) is ModelRateLimited
    assert error.retry_after_seconds == 60
    assert scripted.seen()["requests"] == 1


async def test_stream_raises_unreachable_when_nobody_listens(unused_tcp_port: int) -> None:
    async with connected(f"http://127.0.0.1:{unused_tcp_port}/v1", "", retries=1) as model:
        _, error = await collect_until_error(model)
    assert type(error) is ModelUnreachable


async def test_stream_recovers_when_the_provider_closed_its_kept_connections() -> None:
    with running_scripted_model() as first:
        async with connected(first.base_url, "") as model:
            await collect(model)
            await asyncio.to_thread(first.stop)
            with running_scripted_model(port=first.port):
                assert text_of(await collect(model)) == whole_text("")


# --- what leaks nothing -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("scenario", ["status=500", "status=401", "error=server_error", "cut"])
async def test_error_names_no_key_and_no_address(scripted: ScriptedModel, scenario: str) -> None:
    async with connected(scripted.base_url, scenario, retries=0) as model:
        _, error = await collect_until_error(model)
    for secret in (API_KEY, "sk-", "http", "127.0.0.1", "upstream"):
        assert secret not in error.detail
        assert secret not in str(error)
    assert error.detail


def test_config_does_not_show_its_key() -> None:
    config = OpenAIConfig(base_url="", api_key=API_KEY, models={})
    assert API_KEY not in repr(config)


# --- the connection ---------------------------------------------------------------------------------------------------
async def _close_early(model: OpenAIChatModel) -> None:
    async with aclosing(model.stream(asking())) as stream:
        async for event in stream:
            if isinstance(event, TextDelta):
                break


async def _cancel_in_the_middle(model: OpenAIChatModel) -> None:
    has_text = asyncio.Event()

    async def read() -> None:
        async for event in model.stream(asking()):
            if isinstance(event, TextDelta):
                has_text.set()

    reader = asyncio.create_task(read())
    await has_text.wait()
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader


@pytest.mark.parametrize("scenario", ["stall", "tokens=100000,delay_ms=2"])
@pytest.mark.parametrize("leave", [_close_early, _cancel_in_the_middle])
async def test_stream_closes_the_call_when_its_reader_goes(
    scripted: ScriptedModel, scenario: str, leave: Callable[[OpenAIChatModel], Any]
) -> None:
    async with connected(scripted.base_url, scenario, silence_timeout_seconds=30) as model:
        await leave(model)
        await asyncio.to_thread(scripted.wait_until_open_count, 0, within_seconds=2)
    assert scripted.seen()["abandoned"] == 1


async def test_stream_closes_the_call_when_it_is_cancelled_before_the_first_token(scripted: ScriptedModel) -> None:
    async with connected(scripted.base_url, "first_ms=60000", silence_timeout_seconds=60) as model:
        reader = asyncio.create_task(collect(model))
        await asyncio.to_thread(scripted.wait_until_open_count, 1)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        await asyncio.to_thread(scripted.wait_until_open_count, 0, within_seconds=2)


@pytest.mark.parametrize("scenario", ["stall_end", "hold"])
async def test_stream_leaves_nothing_open_behind_a_whole_answer(scripted: ScriptedModel, scenario: str) -> None:
    async with connected(scripted.base_url, scenario) as model:
        await collect(model)
        await asyncio.to_thread(scripted.wait_until_open_count, 0, within_seconds=2)


@pytest.mark.parametrize("scenario", ["stall", "error=server_error,hold"])
async def test_stream_leaves_nothing_open_behind_a_broken_answer(scripted: ScriptedModel, scenario: str) -> None:
    async with connected(scripted.base_url, scenario) as model:
        # The error is kept, and with its traceback every frame that could close the call by being collected.
        _, error = await collect_until_error(model)
        await asyncio.to_thread(scripted.wait_until_open_count, 0, within_seconds=2)
        assert error.__traceback__ is not None


async def test_stream_uses_a_connection_again(scripted: ScriptedModel) -> None:
    async with connected(scripted.base_url, "") as model:
        for _ in range(5):
            await collect(model)
    assert scripted.seen()["connections"] == 1


async def test_stream_serves_many_runs_at_once(scripted: ScriptedModel) -> None:
    async with connected(scripted.base_url, "tokens=10,delay_ms=20", silence_timeout_seconds=10) as model:
        answers = await asyncio.gather(*(collect(model) for _ in range(100)))
    assert {text_of(events) for events in answers} == {whole_text("tokens=10")}
    assert scripted.seen()["finished"] == 100


def test_stream_works_on_one_loop_after_another(scripted: ScriptedModel) -> None:
    model = OpenAIChatModel(OpenAIConfig(base_url=scripted.base_url, api_key=API_KEY, models={"worker": "scripted"}))

    async def once() -> str:
        try:
            return text_of(await collect(model))
        finally:
            await model.aclose()

    assert asyncio.run(once()) == asyncio.run(once()) == whole_text("")
