"""The envelope every JSON answer travels in: {status, info, data}. `status` is a code as a string, never a number.

Pure builders for views and raw ASGI endpoints alike, and the renderer that wraps what a view returns. An answer
without data (logout, every error) has no `data` key; `Response(None)` says `data: null`.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from django.utils.translation import gettext
from rest_framework.renderers import JSONRenderer
from rest_framework.utils.encoders import JSONEncoder

from smartflow.api.codes import CODES, OK
from smartflow.observability.request_id import current_request_id

# Nothing else of the process goes on while a list is written: larger makes streams stand still beside long lists.
_AT_ONCE = 500


class _NoData:
    """The type of NO_DATA."""

    def __repr__(self) -> str:
        return "NO_DATA"


NO_DATA: Final = _NoData()


def success(data: Any = NO_DATA, info: str = "success") -> dict[str, Any]:
    """Return the envelope of a success, without the key `data` when there is none."""
    body = {"status": OK, "info": info}
    return body if data is NO_DATA else {**body, "data": data}


def failure(
    code: str,
    info: str = "",
    *,
    fields: Mapping[str, str] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """
    Return the envelope of an error or of an informational code.

    Shape: status, info (the code's meaning unless given), the extras, `fields` {name: what to do} when a field is
           to blame, and `request_id`. An extra can replace none of these, and is never called `data`.
    """
    body: dict[str, Any] = {key: value for key, value in (extra or {}).items() if key != "data"}
    body |= {"status": code, "info": info or gettext(CODES[code].meaning)}
    if fields:
        body["fields"] = dict(fields)
    body["request_id"] = current_request_id()
    return body


def to_json(body: Any) -> bytes:
    """Return body as UTF-8 JSON; a lone surrogate is written as its escape instead of failing the answer."""
    data = body.get("data") if isinstance(body, dict) else None
    if isinstance(data, list) and len(data) > _AT_ONCE:
        return _with_long_list({name: value for name, value in body.items() if name != "data"}, data)
    return _dump(body)


def _with_long_list(rest: Mapping[str, Any], data: list[Any]) -> bytes:
    """Return the envelope around a list, which is written part by part."""
    parts = [_dump(data[start : start + _AT_ONCE])[1:-1] for start in range(0, len(data), _AT_ONCE)]
    return b"".join((_dump(rest)[:-1], b',"data":[', b",".join(parts), b"]}"))


def _dump(value: Any) -> bytes:
    text = json.dumps(value, cls=JSONEncoder, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.encode("utf-8", errors="backslashreplace")


class EnvelopeJSONRenderer(JSONRenderer):
    """Wraps what a view returns; the exception handler's bodies are envelopes already and pass through."""

    def render(
        self,
        data: Any,
        accepted_media_type: str | None = None,
        renderer_context: Mapping[str, Any] | None = None,
    ) -> bytes:
        """Return the bytes of the answer; 204 has none."""
        response = (renderer_context or {}).get("response")
        if response is not None and response.status_code == 204:
            return b""
        is_enveloped = response is not None and response.exception
        return to_json(data if is_enveloped else success(data))
