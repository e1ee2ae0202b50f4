"""Two tool calls as providers stream them: each form is a list of `tool_calls` lists, one per chunk.

A model that was given tools calls both; once their results are among the messages it answers with text.
"""

import json
from typing import Any

CALLS = (("call_a", "get_weather", {"city": "Paris"}), ("call_b", "get_time", {"zone": "UTC"}))


def called() -> list[tuple[str, dict[str, str]]]:
    """Return what a reader has to find, in whatever form it came."""
    return [(name, arguments) for _, name, arguments in CALLS]


def deltas_of(form: str) -> list[list[dict[str, Any]]]:
    """Return the calls in a form."""
    if form in _WHOLE:
        return [[_whole(number, **_WHOLE[form])] for number in range(len(CALLS))]
    return [piece for number in range(len(CALLS)) for piece in _pieces(number, _PIECES[form])]


def function_call_deltas() -> list[dict[str, Any]]:
    """Return the first call in the form that came before tool calls; it knows one call and no id."""
    _, name, arguments = CALLS[0]
    text = json.dumps(arguments)
    calls = [{"name": name, "arguments": ""}, {"arguments": text[:5]}, {"arguments": text[5:]}]
    return [{"function_call": call} for call in calls]


# How a call is begun: which index and id its first fragment has.
_WHOLE: dict[str, dict[str, Any]] = {
    "whole": {"index": "own", "has_id": True},
    "whole_same_index": {"index": 0, "has_id": True},
    "whole_same_index_no_id": {"index": 0, "has_id": False},
    "whole_no_index": {"index": None, "has_id": True},
    "whole_no_index_no_id": {"index": None, "has_id": False},
    "whole_object": {"index": "own", "has_id": True, "as_text": False},
}
# How a call goes on: the index and id of its first fragment, then of all that follow.
_PIECES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "own": ({"index": "own", "id": "own"}, {"index": "own"}),
    "same_index": ({"index": 0, "id": "own"}, {"index": 0}),
    "same_index_no_id": ({"index": 0}, {"index": 0}),
    "no_index": ({"id": "own"}, {}),
    "no_index_no_id": ({}, {}),
    "blank_ids": ({"index": "own", "id": "own"}, {"index": "own", "id": "", "name": ""}),
    "known_id": ({"index": "own", "id": "own"}, {"index": 0, "id": "own"}),
    "wrong_index": ({"index": "own", "id": "own"}, {"index": 0}),
}
FORMS = (*_PIECES, *_WHOLE)


def _whole(number: int, *, index: Any, has_id: bool, as_text: bool = True) -> dict[str, Any]:
    call_id, name, arguments = CALLS[number]
    text = json.dumps(arguments) if as_text else arguments
    fragment: dict[str, Any] = {"type": "function", "function": {"name": name, "arguments": text}}
    if index is not None:
        fragment["index"] = number if index == "own" else index
    return fragment | ({"id": call_id} if has_id else {})


def _pieces(number: int, form: tuple[dict[str, Any], dict[str, Any]]) -> list[list[dict[str, Any]]]:
    call_id, name, arguments = CALLS[number]
    text = json.dumps(arguments)
    first, following = (
        {key: {"index": number, "id": call_id}[key] if value == "own" else value for key, value in shape.items()}
        for shape in form
    )
    fragments = [first | {"type": "function", "function": {"name": name, "arguments": ""}}]
    for piece in (text[:5], text[5:9], text[9:]):
        shape = {key: value for key, value in following.items() if key != "name"}
        blank_name = {"name": following["name"]} if "name" in following else {}
        fragments.append(shape | {"function": {**blank_name, "arguments": piece}})
    return [[fragment] for fragment in fragments]
