"""What an item of the long-term memory must be like before it is written; each refusal names field and bound. Pure."""

import hashlib
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any

from chat.memory_contracts import (
    CONTENT_MAX_CHARACTERS,
    HIGHEST_SENSITIVITY,
    REASON_MAX_CHARACTERS,
    SOURCE_MAX_CHARACTERS,
    TITLE_MAX_CHARACTERS,
    MemoryType,
)
from smartflow.kernel.errors import Invalid
from smartflow.kernel.text import noop as _


class MemoryTypeInvalid(Invalid):
    """The type is none of the three."""

    code = "40056"
    message = _("Give a memory type: preference, constraint or fact.")


class MemoryContentInvalid(Invalid):
    """The content is blank, too long, or holds what no text holds."""

    code = "40057"
    message = _("Give a content of 1 to 2000 characters.")


class MemoryFieldInvalid(Invalid):
    """Another value is outside its bound."""

    message = _("Something in the memory item is not valid.")


_NO_CONTROLS = _("Remove the control characters; of those only line breaks and tabs may stand here.")
_NO_CONTROLS_AT_ALL = _("Remove the control characters and line breaks.")


def checked_values(*, values: Mapping[str, Any]) -> dict[str, Any]:
    """
    Return the values of an item's columns as they are stored.

    Raises: for the first that is not valid, one of the errors above, with its field.
    """
    return {name: _CHECKS[name](name, value) for name, value in values.items()}


def checked_reason(*, reason: str) -> str:
    """Return the reason of a change as it is stored. Raises: MemoryFieldInvalid."""
    return _line("reason", reason, REASON_MAX_CHARACTERS, _("Give a reason of at most 255 characters."))


def content_hash(*, content: str) -> str:
    """Return the SHA-256 of a content, the same however it is spaced, capitalised or composed."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", content).casefold())
    return hashlib.sha256(" ".join(folded.split()).encode()).hexdigest()


def _type(name: str, value: Any) -> str:
    if value not in set(MemoryType):
        raise MemoryTypeInvalid(fields={name: MemoryTypeInvalid.message})
    return str(value)


def _title(name: str, value: str) -> str:
    hint = _("Give a title of 1 to 255 characters.")
    title = _line(name, value, TITLE_MAX_CHARACTERS, hint)
    if not title:
        raise MemoryFieldInvalid(fields={name: hint})
    return title


def _content(name: str, value: str) -> str:
    content = value.replace("\r\n", "\n").strip()
    if not 1 <= len(content) <= CONTENT_MAX_CHARACTERS:
        raise MemoryContentInvalid(fields={name: MemoryContentInvalid.message})
    if _has_controls(content.replace("\n", "").replace("\t", "")):
        raise MemoryContentInvalid(fields={name: _NO_CONTROLS})
    return content


def _source(name: str, value: str | None) -> str | None:
    return _line(name, value or "", SOURCE_MAX_CHARACTERS, _("Give an id of at most 64 characters.")) or None


def _weight(name: str, value: float) -> float:
    if not 0 <= value <= 1:
        raise MemoryFieldInvalid(fields={name: _("Give a number from 0 to 1.")})
    return float(value)


def _sensitivity(name: str, value: int) -> int:
    if not 0 <= value <= HIGHEST_SENSITIVITY:
        raise MemoryFieldInvalid(fields={name: _("Give a number from 0 to 2.")})
    return value


def _as_it_is(name: str, value: Any) -> Any:
    return value


def _line(name: str, value: str, most: int, hint: str) -> str:
    text = value.strip()
    if len(text) > most:
        raise MemoryFieldInvalid(fields={name: hint})
    if _has_controls(text):
        raise MemoryFieldInvalid(fields={name: _NO_CONTROLS_AT_ALL})
    return text


def _has_controls(text: str) -> bool:
    # also lone surrogates, which no database stores
    return any(unicodedata.category(character) in {"Cc", "Cs"} for character in text)


_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "memory_type": _type,
    "title": _title,
    "content": _content,
    "conversation_id": _as_it_is,  # whose it is the operation looks up
    "assistant_id": _source,
    "run_id": _source,
    "confidence": _weight,
    "importance": _weight,
    "sensitivity_level": _sensitivity,
    "is_explicit": _as_it_is,
    "ttl_at": _as_it_is,
}
