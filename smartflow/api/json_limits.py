"""What a JSON body may hold, whatever its route: depth, lengths, and only text that every part of ours can keep.

`read_json` serves REST framework's parser and the raw routes. Each refusal names the place and the bound.
"""

import json
import math
import re
from typing import Any

from django.conf import settings
from django.utils.translation import gettext
from rest_framework.exceptions import ParseError

from smartflow.kernel.errors import Invalid
from smartflow.kernel.text import noop as _

_SURROGATE = re.compile("[\ud800-\udfff]")
_WHOLE = "body"


class JsonRefused(Invalid):
    """A body breaks a bound that holds everywhere."""

    message = _("Something in the request is not valid.")


class JsonTooLong(Invalid):
    """A text or a list of a body is too long."""

    code = "40006"
    message = _("Something in the request is too long.")


def read_json(body: bytes) -> Any:
    """Return the parsed body. Raises: ParseError; JsonRefused 40005 and JsonTooLong 40006, which name the place."""
    try:
        values = json.loads(body, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise _too_deep(_WHOLE) from error
    except ValueError as error:
        raise ParseError(gettext("The body is not valid JSON: %(why)s.") % {"why": str(error)[:200]}) from error
    check_json(values)
    return values


def check_json(values: Any) -> None:
    """Raise JsonRefused or JsonTooLong when the parsed values break a bound."""
    _check_text_or_number("", "", values)
    waiting = [("", values, 1)] if isinstance(values, dict | list) else []
    seen = 0
    while waiting:
        path, container, depth = waiting.pop()
        seen += len(container)
        _check_container(path, container, depth, seen)
        for name, value in container.items() if isinstance(container, dict) else enumerate(container):
            if isinstance(value, dict | list):
                waiting.append((_join(path, name), value, depth + 1))
            else:
                _check_text_or_number(path, name, value)


def _check_container(path: str, container: dict[str, Any] | list[Any], depth: int, seen: int) -> None:
    if depth > settings.JSON_MAX_DEPTH:
        raise _too_deep(path)
    if len(container) > settings.JSON_MAX_LIST_ITEMS:
        what = gettext("Send at most %(most)s items here.")
        raise JsonTooLong(fields={path or _WHOLE: what % {"most": settings.JSON_MAX_LIST_ITEMS}})
    if seen > settings.JSON_MAX_VALUES:
        what = gettext("The body holds more than %(most)s values. Send less at once.")
        raise JsonTooLong(fields={_WHOLE: what % {"most": settings.JSON_MAX_VALUES}})
    if isinstance(container, dict):
        for name in container:
            _check_text_or_number(path, "", name)


def _check_text_or_number(path: str, name: Any, value: Any) -> None:
    """Check what holds nothing else; its place is written down only when it is refused."""
    if isinstance(value, str):
        if len(value) > settings.JSON_MAX_STRING_CHARACTERS:
            what = gettext("Send at most %(most)s characters here.")
            raise JsonTooLong(fields={_join(path, name): what % {"most": settings.JSON_MAX_STRING_CHARACTERS}})
        if "\0" in value:
            raise JsonRefused(fields={_join(path, name): gettext("Remove the NUL character.")})
        if not value.isascii() and _SURROGATE.search(value):
            raise JsonRefused(fields={_join(path, name): gettext("Remove the half of a character (a lone surrogate).")})
    elif isinstance(value, float) and not math.isfinite(value):
        raise JsonRefused(fields={_join(path, name): gettext("Send a number that is not infinite.")})


def _too_deep(path: str) -> JsonRefused:
    what = gettext("Nest at most %(most)s levels deep.")
    return JsonRefused(fields={path or _WHOLE: what % {"most": settings.JSON_MAX_DEPTH}})


def _join(path: str, name: Any) -> str:
    """Return a place within a place. Cut: a long name above many values would be written down with each of them."""
    return f"{path}.{str(name)[:64]}".strip(".")[:200] or _WHOLE


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON value")
