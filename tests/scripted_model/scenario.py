"""What one request asks the scripted server to do.

Written in the requested model's name, `scripted:tokens=200,delay_ms=5`, and in the last user message,
`[[cut after=5]]`; the message wins. A bare word switches something on. See Scenario for the words.
"""

import re
from dataclasses import dataclass, fields

_DIRECTIVE = re.compile(r"\[\[(.*?)\]\]", re.DOTALL)


class ScenarioMisspelled(ValueError):
    """A word that no scenario knows; answered with 400, so that a test does not pass by accident."""


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One request's behaviour. `after` counts content chunks and belongs to cut, stall and error."""

    # the answer
    text: str = "tokens"  # tokens: "token 1 token 2 ..." | zh | emoji | echo
    tokens: int = 20
    numbered: bool = False  # of an echo, each piece says which request it answers: two answers are never the same
    reasoning: int = 0  # so many reasoning chunks first
    reasoning_field: str = "reasoning_content"
    # text | list | message (no delta) | both (beside deltas, a message with all of it) | legacy (a completion's text)
    content: str = "text"
    beside: bool = False  # every content chunk carries a thought, too
    tools: str = ""  # calls two tools first, in a form of tool_calls.py; text once their results are sent
    refusal: bool = False  # the text comes as a refusal
    finish: str = "stop"  # `none` leaves it out
    usage: str = (
        "own"  # own | last | content | after | choice (inside it) | first | none | null | zero | running | huge
    )
    # its pace
    first_ms: float = 0
    delay_ms: float = 0
    # how it breaks
    after: int = 5
    cut: bool = False  # the socket is closed
    quiet_cut: bool = False  # the body ends properly, but without finish reason and [DONE]
    half: int = 0  # the body ends properly, so many bytes into a frame
    stall: bool = False  # silence until the client goes
    stall_end: bool = False  # silence after the finish reason
    error: str = ""  # an error object with this code in the middle, or one of ERRORS in frames.py
    status: int = 200
    times: int = 10**9  # so many requests of this key get `status`, then the answer comes
    retry_after: str = ""
    code: str = ""  # the code in the body of an error status
    key: str = ""  # tells one test's counts from another's
    # the wire
    no_done: bool = False
    hold: bool = False  # the body stays open after [DONE] or the error object
    not_sse: str = ""  # html | json
    empty_choices: bool = False  # a chunk without choices first
    byte_order_mark: bool = False  # before the first chunk, which has words
    text_index: bool = False  # the choice's index is a string
    comments: bool = False  # pings between chunks: as comment, as event, as text
    ping_ms: float = 0  # comments while silent in a stall or before the first chunk
    crlf: bool = False
    gzip: bool = False
    split: int = 0  # the body leaves in pieces of so many bytes


_KINDS = {field.name: field.type for field in fields(Scenario)}


def read_scenario(model: str, message: str) -> Scenario:
    """Return the scenario of a request from its model's name and its last user message."""
    words = _words(model.partition(":")[2])
    for directive in _DIRECTIVE.findall(message):
        words |= _words(directive)
    values: dict[str, object] = {name: _value(name, raw) for name, raw in words.items()}
    return Scenario(**values)  # type: ignore[arg-type]


def _words(text: str) -> dict[str, str]:
    pairs = (word.partition("=") for word in re.split(r"[\s,]+", text) if word)
    return {name: value if equals else "1" for name, equals, value in pairs}


def _value(name: str, raw: str) -> object:
    kind = _KINDS.get(name)
    if kind is None:
        raise ScenarioMisspelled(f"{name!r} is no word of a scenario; known: {', '.join(sorted(_KINDS))}")
    if kind is bool:
        return raw not in {"0", "false"}
    try:
        return kind(raw)  # type: ignore[operator]
    except ValueError:
        raise ScenarioMisspelled(f"{name}={raw!r} is no {kind.__name__}") from None  # type: ignore[union-attr]
