"""What the model is told to make a title of, and what of its answer becomes the title. Pure."""

import re
from collections.abc import Sequence

from chat.contracts import HistoryMessage

MOST_MESSAGES = 8
MOST_CHARACTERS_OF_A_MESSAGE = 80
MOST_WORDS = 250
MOST_CHARACTERS = 24

INSTRUCTION = (
    "You name conversations of a student with an assistant. Answer with the title alone, in the conversation's"
    " language: short and natural, 8 to 20 characters in Chinese, at most 6 words elsewhere. Name the matter itself; of"
    " a reminder, what is to be remembered. No quotation marks, and no general words such as chat, user or assistant."
)

_PREFIX = re.compile(r"(?:标题|標題|题目|題目|title)\s*[:\uff1a]\s*", re.IGNORECASE)
_QUOTES = "\"'`“”‘’«»‹›「」『』 "
_OPENING = _QUOTES + "*#_~-<([{《〈【〔\uff08\uff3b\uff5b"
_CLOSING = _QUOTES + "*#_~>)]}》〉】〕\uff09\uff3d\uff5d"
# What joins the character before it to one that was cut off.
_DANGLING = "\u200d\ufe0f"


def describe_conversation(messages: Sequence[HistoryMessage]) -> str:
    """
    Return the conversation's newest messages as text, each cut short.

    Shape: one line a message, `user: ...`, oldest first; at most MOST_WORDS words in all, the first ones.
    """
    lines: list[str] = []
    left = MOST_WORDS
    for message in messages[-MOST_MESSAGES:]:
        words = message.content[:MOST_CHARACTERS_OF_A_MESSAGE].split()[:left]
        left -= len(words)
        if words:
            lines.append(f"{message.role}: {' '.join(words)}")
    return "\n".join(lines)


def clean_title(text: str) -> str:
    """Return the title in a model's answer: its first line without quotes and a "title:", cut; "" if none is left."""
    lines = (" ".join(_printable(line).split()) for line in text.splitlines())
    title = next((line for line in lines if line), "")
    before = None
    while title != before:  # quotes may stand around the prefix and behind it
        before = title
        title = title.lstrip(_OPENING).rstrip(_CLOSING)
        if prefix := _PREFIX.match(title):
            title = title[prefix.end() :]
    return title[:MOST_CHARACTERS].rstrip(_CLOSING + _DANGLING)


def _printable(line: str) -> str:
    kept = (one for one in line if one.isprintable() or one.isspace() or one in _DANGLING)
    return "".join(kept)
