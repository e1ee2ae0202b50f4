"""A title and a summary without a model: the user's first words, and a bounded extract. Pure; used by offline.py.

The material comes as messages of the conversation, or as one message that quotes them line by line, each under the
name of who said it.
"""

import re
from collections.abc import Iterable, Sequence

from chat.contracts import HistoryMessage, Role

MAX_TITLE_CHARACTERS = 24
MAX_SUMMARY_CHARACTERS = 1200
MAX_LINE_CHARACTERS = 160

_SAID_BY_USER = re.compile(r"^\W*(?:user|student|用户|学生)\s*[:：]\s*(?P<said>\S.*)$", re.IGNORECASE | re.MULTILINE)
_SENTENCE_END = re.compile(r"[。！？!?；;]|\.(?=\s|$)")


def extract_title(messages: Sequence[HistoryMessage]) -> str:
    """Return the first words that the user said, at most MAX_TITLE_CHARACTERS."""
    texts = [message.content for message in messages if message.role is Role.USER]
    quoted = (match["said"] for text in texts for match in _SAID_BY_USER.finditer(text))
    said = next(quoted, None) or next((text for text in texts if text.strip()), "")
    sentence = _SENTENCE_END.split(" ".join(said.split()), maxsplit=1)[0]
    return _first_words(sentence, MAX_TITLE_CHARACTERS)


def extract_summary(messages: Sequence[HistoryMessage], *, max_tokens: int | None = None) -> str:
    """
    Return what was said in short lines, in order: the beginning and the end when it is too much for all.

    Units: at most MAX_SUMMARY_CHARACTERS and max_tokens; no character takes more than one token.
    """
    limit = min(MAX_SUMMARY_CHARACTERS, MAX_SUMMARY_CHARACTERS if max_tokens is None else max_tokens)
    lines = [
        _first_words(" ".join(line.split()), MAX_LINE_CHARACTERS)
        for message in messages
        for line in message.content.splitlines()
        if line.strip()
    ]
    text = "\n".join(lines)
    if len(text) <= limit:
        return text
    first = _lines_within(lines, limit // 2)
    last = _lines_within(reversed(lines[len(first) :]), limit // 2)
    return "\n".join([*first, *reversed(last)]) or text[:limit]


def _lines_within(lines: Iterable[str], limit: int) -> list[str]:
    kept = []
    for line in lines:
        limit -= len(line) + 1
        if limit < 0:
            break
        kept.append(line)
    return kept


def _first_words(text: str, limit: int) -> str:
    text = text.strip()
    if len(text) <= limit:
        return text
    words, blank, _ = text[: limit + 1].rpartition(" ")
    # Chinese has no blanks to cut at, and neither has an address.
    return words if blank and len(words) > limit // 2 else text[:limit]
