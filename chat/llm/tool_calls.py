"""Tool calls put together from fragments, whatever a provider does with their indexes and ids. Pure.

Called by chunks.py. Providers leave ids blank on continuations, leave indexes out, give one index to two calls, send a
whole call at once, or continue a call under another's index. The rules, first match first:

- a known id is its call, whatever the index says;
- a new id with a name is a new call, on a used index too;
- a new id without a name belongs to the unfinished call of its index, since some make up an id for each fragment;
- no id: the call of that index, or the current one when there is no index;
- a fragment for a call whose JSON is complete goes to one that is not, and else begins a new call.
"""

import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import orjson

from chat.llm.port import ToolCall, ToolCallDelta

_MARKS = re.compile(r'\\.|["{}\\]', re.DOTALL)


class _Fragment(NamedTuple):
    place: int | None  # what the provider calls the index
    id: str
    name: str
    arguments: str


class _Braces:
    """Tells when a JSON object that comes in pieces has closed. Each character is looked at once."""

    def __init__(self) -> None:
        self.is_closed = False
        self._depth = 0
        self._is_in_string = False
        self._is_escaped = False

    def feed(self, piece: str) -> None:
        if self._is_escaped and piece:
            piece, self._is_escaped = piece[1:], False
        for mark in _MARKS.findall(piece):
            if mark == '"':
                self._is_in_string = not self._is_in_string
            elif mark == "\\":  # the last character; what it escapes comes with the next piece
                self._is_escaped = True
            elif len(mark) == 1 and not self._is_in_string:
                self._depth += 1 if mark == "{" else -1
                self.is_closed = self._depth == 0


class _OpenCall:
    def __init__(self, index: int, call_id: str) -> None:
        self.index = index
        self.call_id = call_id
        self.name = ""
        self._pieces: list[str] = []
        self._braces = _Braces()

    @property
    def arguments(self) -> str:
        return "".join(self._pieces)

    @property
    def is_whole(self) -> bool:
        return self._braces.is_closed

    def take(self, fragment: _Fragment) -> ToolCallDelta:
        name = "" if self.name else fragment.name
        self.name = self.name or name
        self._pieces.append(fragment.arguments)
        self._braces.feed(fragment.arguments)
        return ToolCallDelta(self.index, self.call_id, name, fragment.arguments)


def new_call_id() -> str:
    """Return an id for a call that its provider gave none."""
    return f"call_{secrets.token_hex(12)}"


class ToolCallAssembler:
    """The tool calls of one answer, in order of appearance."""

    def __init__(self, new_id: Callable[[], str] = new_call_id) -> None:
        self._new_id = new_id
        self._calls: list[_OpenCall] = []
        self._by_id: dict[str, _OpenCall] = {}
        self._by_place: dict[int, _OpenCall] = {}

    def feed(self, fragments: object) -> Iterator[ToolCallDelta]:
        """Yield what the fragments of one chunk add; nothing for what is no fragment."""
        for raw in fragments if isinstance(fragments, list) else ():
            if isinstance(raw, dict) and (fragment := _read(raw)):
                yield from self._add(fragment)

    def calls(self) -> tuple[ToolCall, ...]:
        """Return the calls so far; whole ones once the provider has finished."""
        return tuple(ToolCall(call.call_id, call.name, call.arguments.strip() or "{}") for call in self._calls)

    def _add(self, fragment: _Fragment) -> Iterator[ToolCallDelta]:
        call = self._find(fragment)
        if call and call.is_whole:
            if self._adds_nothing(fragment, call):
                return
            call = self._behind_whole(fragment, call)
        call = call or self._begin(fragment)
        if fragment.id:
            self._by_id[fragment.id] = call
        delta = call.take(fragment)
        if delta.name or delta.arguments:
            yield delta

    def _find(self, fragment: _Fragment) -> _OpenCall | None:
        if fragment.id in self._by_id:
            return self._by_id[fragment.id]
        if fragment.id and fragment.name:
            return None
        if fragment.place is None:
            call = self._calls[-1] if self._calls else None
        else:
            call = self._by_place.get(fragment.place) or (None if fragment.name else self._unfinished())
        return call if call and fragment.name in {"", call.name or fragment.name} else None

    def _adds_nothing(self, fragment: _Fragment, whole: _OpenCall) -> bool:
        """Tell whether the fragment only closes a call or says it once more."""
        if fragment.id in self._by_id:
            return not fragment.arguments.strip() or fragment.arguments == whole.arguments
        return not fragment.arguments.strip() and not fragment.name

    def _behind_whole(self, fragment: _Fragment, whole: _OpenCall) -> _OpenCall | None:
        if fragment.name:
            return None
        return whole if fragment.id in self._by_id else self._unfinished()

    def _unfinished(self) -> _OpenCall | None:
        return next((call for call in reversed(self._calls) if not call.is_whole), None)

    def _begin(self, fragment: _Fragment) -> _OpenCall:
        # Two calls under one id could not be told apart when their results go back.
        call_id = fragment.id if fragment.id and fragment.id not in self._by_id else self._new_id()
        call = self._by_id[call_id] = _OpenCall(len(self._calls), call_id)
        self._calls.append(call)
        if fragment.place is not None:
            self._by_place[fragment.place] = call
        return call


def _read(raw: Mapping[str, Any]) -> _Fragment | None:
    function = raw.get("function")
    function = function if isinstance(function, dict) else {}
    index, arguments = raw.get("index"), function.get("arguments")
    fragment = _Fragment(
        place=index if isinstance(index, int) and not isinstance(index, bool) else None,
        id=_text_of(raw.get("id")),
        name=_text_of(function.get("name")),
        # Some send the object itself instead of its text.
        arguments=orjson.dumps(arguments).decode() if isinstance(arguments, dict) else _text_of(arguments),
    )
    return fragment if fragment.id or fragment.name or fragment.arguments else None


def _text_of(value: object) -> str:
    return value if isinstance(value, str) else ""
