"""How many tokens a text is likely to cost, and which turns of a conversation still fit the model. Pure.

Called when a model request is put together and when a provider reports no usage.
"""

import re
from collections.abc import Sequence

from chat.contracts import HistoryMessage

Turn = tuple[HistoryMessage, ...]

MESSAGE_OVERHEAD_TOKENS = 6
REQUEST_OVERHEAD_TOKENS = 64

# Han, kana and hangul by Unicode script: one token each. The `+` keeps a long Chinese text at one match.
_CJK_RUNS = re.compile(
    "[\u1100-\u11ff\u2e80-\u2fd5\u3005\u3007\u3021-\u3029\u302e\u302f\u3038-\u303b\u3041-\u3096\u309d-\u309f"
    "\u30a1-\u30fa\u30fd-\u30ff\u3131-\u318e\u31f0-\u31ff\u3200-\u321e\u3260-\u327e\u32d0-\u32fe\u3300-\u3357"
    "\u3400-\u4dbf\u4e00-\u9fff\ua960-\ua97c\uac00-\ud7fb\uf900-\ufad9\uff66-\uff6f\uff71-\uff9d\uffa0-\uffdc"
    "\U00016fe2-\U00016ff1\U0001b000-\U0001b16f\U00020000-\U000323af]+"
)


def estimate_text(text: str) -> int:
    """
    Estimate the tokens of a text: blank is 0, else at least 1.

    Units: CJK characters 1 each, four ASCII characters a token, two others a token; white space is free.
    """
    dense = "".join(text.split())
    if dense.isascii():
        return _ceil_divide(len(dense), 4)
    without_cjk = _CJK_RUNS.sub("", dense)
    ascii_count = len(without_cjk.encode("ascii", "ignore"))
    other_count = len(without_cjk) - ascii_count
    return len(dense) - len(without_cjk) + _ceil_divide(ascii_count, 4) + _ceil_divide(other_count, 2)


def estimate_message(content: str, *, reasoning: str = "") -> int:
    """Estimate the tokens of one message: its texts and what a provider adds around them."""
    return MESSAGE_OVERHEAD_TOKENS + estimate_text(content) + estimate_text(reasoning)


def estimate_prompt(messages: Sequence[HistoryMessage], *, system_prompt: str = "") -> int:
    """Estimate the tokens of everything that is sent to the model."""
    return estimate_text(system_prompt) + sum(estimate_message(message.content) for message in messages)


def history_budget(*, max_input_tokens: int, reserved_tokens: int, system_prompt: str, user_message: str) -> int:
    """Return the tokens left for earlier turns, never below 0."""
    base = estimate_text(system_prompt) + estimate_text(user_message) + REQUEST_OVERHEAD_TOKENS
    return max(0, max_input_tokens - reserved_tokens - base)


def trim_turns(
    turns: Sequence[Turn],
    *,
    max_input_tokens: int,
    reserved_tokens: int,
    system_prompt: str,
    user_message: str,
) -> tuple[Turn, ...]:
    """
    Drop the oldest turns until the rest fits the budget.

    Order: oldest first, in and out. A turn is kept whole or not at all: an answer without its question misleads.
    Shape: a suffix of `turns`; empty when the budget is 0.
    """
    left = history_budget(
        max_input_tokens=max_input_tokens,
        reserved_tokens=reserved_tokens,
        system_prompt=system_prompt,
        user_message=user_message,
    )
    start = len(turns)
    for index in range(len(turns) - 1, -1, -1):
        left -= sum(estimate_message(message.content) for message in turns[index])
        if left < 0:
            break
        start = index
    # An empty turn costs nothing and would otherwise survive a budget of 0.
    return tuple(turn for turn in turns[start:] if turn)


def _ceil_divide(count: int, by: int) -> int:
    return -(-count // by)


class RunningEstimate:
    """The estimate of a text that grows piece by piece; the same number as estimate_text of the whole."""

    __slots__ = ("_ascii", "_cjk", "_other")

    def __init__(self) -> None:
        self._ascii = self._cjk = self._other = 0

    def add(self, piece: str) -> None:
        """Count one more piece."""
        dense = "".join(piece.split())
        if dense.isascii():
            self._ascii += len(dense)
            return
        without_cjk = _CJK_RUNS.sub("", dense)
        ascii_count = len(without_cjk.encode("ascii", "ignore"))
        self._cjk += len(dense) - len(without_cjk)
        self._ascii += ascii_count
        self._other += len(without_cjk) - ascii_count

    def plus(self, piece: str) -> "RunningEstimate":
        """Return the estimate with one more piece; this one stays as it is."""
        longer = RunningEstimate()
        longer._ascii, longer._cjk, longer._other = self._ascii, self._cjk, self._other
        longer.add(piece)
        return longer

    @property
    def tokens(self) -> int:
        """The estimate so far."""
        return self._cjk + _ceil_divide(self._ascii, 4) + _ceil_divide(self._other, 2)
