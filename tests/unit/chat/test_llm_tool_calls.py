"""Tool calls of many providers, put together from their fragments."""

import itertools
from typing import Any

import pytest

from chat.llm.port import ToolCall, ToolCallDelta
from chat.llm.tool_calls import ToolCallAssembler, new_call_id

PARIS, UTC = '{"city": "Paris"}', '{"zone": "UTC"}'
WEATHER, TIME = ("get_weather", PARIS), ("get_time", UTC)


def fragment(index: int | None = None, id: str | None = None, name: str | None = None, args: Any = None) -> Any:
    function = {key: value for key, value in (("name", name), ("arguments", args)) if value is not None}
    outer = {key: value for key, value in (("index", index), ("id", id)) if value is not None}
    return outer | {"type": "function", "function": function}


def assembled(*fragments: Any) -> tuple[ToolCallAssembler, list[ToolCallDelta]]:
    numbers = itertools.count(1)
    assembler = ToolCallAssembler(new_id=lambda: f"made-{next(numbers)}")
    return assembler, [delta for each in fragments for delta in assembler.feed([each])]


def called(*fragments: Any) -> list[tuple[str, str]]:
    """Return what is called, having checked that the pieces join to just that, each under its own index and id."""
    assembler, deltas = assembled(*fragments)
    calls = assembler.calls()
    for index, call in enumerate(calls):
        own = [delta for delta in deltas if delta.index == index]
        assert {delta.call_id for delta in own} == {call.call_id}
        assert "".join(delta.name for delta in own) == call.name
        assert ("".join(delta.arguments for delta in own).strip() or "{}") == call.arguments
    assert len({call.call_id for call in calls}) == len(calls)
    return [(call.name, call.arguments) for call in calls]


@pytest.mark.parametrize(
    "fragments",
    [
        pytest.param(
            [
                fragment(0, "a", "get_weather", ""),
                fragment(0, None, None, '{"city":'),
                fragment(0, None, None, ' "Paris"}'),
                fragment(1, "b", "get_time", ""),
                fragment(1, None, None, UTC),
            ],
            id="as OpenAI does",
        ),
        pytest.param(
            [
                fragment(0, "a", "get_weather", '{"city":'),
                fragment(1, "b", "get_time", '{"zone":'),
                fragment(0, None, None, ' "Paris"}'),
                fragment(1, None, None, ' "UTC"}'),
            ],
            id="interleaved",
        ),
        pytest.param(
            [fragment(0, "a", "get_weather", PARIS), fragment(0, "b", "get_time", UTC)],
            id="one index for two calls, whole JSON at once",
        ),
        pytest.param(
            [
                fragment(0, "a", "get_weather", ""),
                fragment(0, None, None, PARIS),
                fragment(0, "b", "get_time", ""),
                fragment(0, None, None, '{"zone":'),
                fragment(0, None, None, ' "UTC"}'),
            ],
            id="one index for two calls, in pieces",
        ),
        pytest.param(
            [
                fragment(0, "a", "get_weather", '{"city":'),
                fragment(0, "b", "get_time", '{"zone":'),
                fragment(0, "a", None, ' "Paris"}'),
                fragment(0, "b", None, ' "UTC"}'),
            ],
            id="one index for two calls, told apart by their ids",
        ),
        pytest.param(
            [fragment(0, None, "get_weather", PARIS), fragment(0, None, "get_time", UTC)],
            id="one index, no ids, whole",
        ),
        pytest.param(
            [
                fragment(0, None, "get_weather", '{"city":'),
                fragment(0, None, None, ' "Paris"}'),
                fragment(0, None, "get_time", '{"zone":'),
                fragment(0, None, None, ' "UTC"}'),
            ],
            id="one index, no ids, in pieces",
        ),
        pytest.param(
            [
                fragment(None, "a", "get_weather", '{"city":'),
                fragment(None, None, None, ' "Paris"}'),
                fragment(None, "b", "get_time", '{"zone":'),
                fragment(None, None, None, ' "UTC"}'),
            ],
            id="no index",
        ),
        pytest.param(
            [
                fragment(None, None, "get_weather", '{"city":'),
                fragment(None, None, None, ' "Paris"}'),
                fragment(None, None, "get_time", UTC),
            ],
            id="no index, no id",
        ),
        pytest.param(
            [
                fragment(0, "a", "get_weather", '{"city":'),
                fragment(0, "", "", ' "Paris"}'),
                fragment(1, "b", "get_time", '{"zone":'),
                fragment(1, "", "", ' "UTC"}'),
                fragment(1, "", "", ""),
            ],
            id="blank continuations",
        ),
        pytest.param(
            [
                fragment(0, "a", "get_weather", '{"city":'),
                fragment(0, "a", "get_weather", ' "Paris"}'),
                fragment(1, "b", "get_time", '{"zone":'),
                fragment(1, "b", "get_time", ' "UTC"}'),
                fragment(1, "b", "get_time", ""),
            ],
            id="id and name with every piece",
        ),
        pytest.param(
            [
                fragment(0, "a", "get_weather", '{"city":'),
                fragment(1, "a", None, ' "Paris"}'),
                fragment(1, "b", "get_time", UTC),
            ],
            id="a known id on a wrong index",
        ),
        pytest.param(
            [
                fragment(0, "a", "get_weather", PARIS),
                fragment(1, "b", "get_time", '{"zone":'),
                fragment(0, None, None, ' "UTC"}'),
            ],
            id="a continuation on the index of a whole call",
        ),
        pytest.param(
            [
                fragment(0, "a", "get_weather", PARIS),
                fragment(1, "b", "get_time", '{"zone":'),
                fragment(2, None, None, ' "UTC"}'),
            ],
            id="a continuation on an index of nobody",
        ),
        pytest.param(
            [
                fragment(0, "a", "get_weather", '{"city":'),
                fragment(0, "x", None, ' "Par'),
                fragment(0, "y", None, 'is"}'),
                fragment(1, "b", "get_time", UTC),
            ],
            id="another id with every piece",
        ),
        pytest.param(
            [
                fragment(0, None, "get_weather", '{"city":'),
                fragment(0, "late", None, ' "Paris"}'),
                fragment(1, None, "get_time", UTC),
            ],
            id="the id comes late",
        ),
        pytest.param(
            [fragment(0, "same", "get_weather", PARIS), fragment(1, "same", "get_time", UTC)],
            id="one id for two calls",
        ),
        pytest.param(
            [
                fragment(0, "a", "get_weather", {"city": "Paris"}),
                fragment(1, "b", "get_time", {"zone": "UTC"}),
            ],
            id="arguments as an object",
        ),
        pytest.param(
            [
                fragment(0, "a", "get_weather", PARIS),
                fragment(0, "a", "get_weather", PARIS),
                fragment(1, "b", "get_time", UTC),
                fragment(1, "b", None, "\n"),
            ],
            id="said once more",
        ),
        pytest.param(
            [
                fragment(0, "a"),
                fragment(0, None, "get_weather"),
                fragment(0, None, None, PARIS),
                fragment(1, "b"),
                fragment(1, None, "get_time", UTC),
            ],
            id="id, name and arguments one after the other",
        ),
    ],
)
def test_feed_finds_both_calls(fragments: list[Any]) -> None:
    assert [(name, args.replace('":"', '": "')) for name, args in called(*fragments)] == [WEATHER, TIME]


def test_feed_begins_a_new_call_when_the_same_tool_is_called_again_without_id_and_index() -> None:
    assert called(
        fragment(None, None, "get_weather", PARIS),
        fragment(None, None, "get_weather", ""),
        fragment(None, None, None, '{"city": "Rome"}'),
    ) == [WEATHER, ("get_weather", '{"city": "Rome"}')]


def test_feed_keeps_two_calls_that_differ_by_their_ids_alone() -> None:
    assert called(fragment(0, "a", "get_time", UTC), fragment(0, "b", "get_time", UTC)) == [TIME, TIME]


def test_feed_tells_two_unfinished_calls_of_one_tool_and_index_apart_by_their_ids() -> None:
    assert called(
        fragment(0, "a", "get_time", '{"zone":'),
        fragment(0, "b", "get_time", '{"zone":'),
        fragment(0, "a", None, ' "UTC"}'),
        fragment(0, "b", None, ' "CET"}'),
    ) == [TIME, ("get_time", '{"zone": "CET"}')]


def test_feed_does_not_take_a_nested_object_for_a_whole_call() -> None:
    pieces = ['{"a": {"b": 1}', ', "c": {}', "}"]
    assert called(fragment(0, "x", "f", ""), *(fragment(0, None, None, piece) for piece in pieces)) == [
        ("f", '{"a": {"b": 1}, "c": {}}')
    ]


def test_calls_gives_an_empty_object_when_there_are_no_arguments() -> None:
    assembler, _ = assembled(fragment(0, "a", "now"), fragment(1, "b", "then", ""))
    assert assembler.calls() == (ToolCall("a", "now", "{}"), ToolCall("b", "then", "{}"))


def test_feed_makes_an_id_when_there_is_none_and_keeps_it() -> None:
    assembler, deltas = assembled(fragment(0, "", "f", '{"a":'), fragment(0, "", None, "1}"))
    assert deltas == [ToolCallDelta(0, "made-1", "f", '{"a":'), ToolCallDelta(0, "made-1", "", "1}")]
    assert assembler.calls() == (ToolCall("made-1", "f", '{"a":1}'),)
    assert new_call_id() != new_call_id()


@pytest.mark.parametrize(
    "fragments",
    [
        None,
        {},
        "x",
        [None],
        [5],
        [{}],
        [{"index": 0}],
        [{"function": None}],
        [{"index": True, "function": {"name": 5}}],
    ],
)
def test_feed_passes_over_what_is_no_fragment(fragments: object) -> None:
    assembler = ToolCallAssembler()
    assert (list(assembler.feed(fragments)), assembler.calls()) == ([], ())


def test_feed_is_not_misled_by_braces_and_quotes_inside_a_text() -> None:
    pieces = ['{"text": "}', "}{", "\\", '"}', '\\"', "\\\\", '"', ', "n": {}', "}"]
    assert called(fragment(0, "a", "f"), *(fragment(0, None, None, piece) for piece in pieces)) == [
        ("f", '{"text": "}}{\\"}\\"\\\\", "n": {}}')
    ]
