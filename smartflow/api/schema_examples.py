"""Makes an example of any documented shape, for routes that show none of their own. Pure; deterministic.

What a field is called says more than its type: `title` reads better as a title than as "string". An example holds to
its schema all the same; a test checks each of them.
"""

from collections.abc import Callable, Mapping
from typing import Any

Schema = Mapping[str, Any]
Resolve = Callable[[str], Schema]

_BY_NAME: dict[str, Any] = {
    "username": "alice",
    "password": "correct-horse-9-battery",
    "phone_number": "+86 138 0013 8000",
    "time_zone": "Asia/Shanghai",
    "access_token": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.access",
    "refresh_token": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.refresh",
    "user_agent": "Mozilla/5.0",
    "ip_address": "192.0.2.7",
    "title": "Hand in sheet 4",
    "name": "Linear algebra",
    "message": "What shall I learn first today?",
    "content": "Read chapter 2.",
    "keyword": "sheet",
    "status": "incomplete",
    "deadline": "2030-05-20 18:00:00",
    "start_date": "2030-03-04",
    "end_date": "2030-07-14",
    "estimated_sections": 2,
    "priority_group": 2,
    "version": "0.1.0",
    "reason": "It is not true any more.",
    "payload": {"run_id": "0b6f4f0e-6a8a-4a3e-9f0e-0c7b6d5e4f3a", "turn_no": 1},
    "parts": {"database": {"ok": True, "ms": 0.8}},
}
_BY_FORMAT: dict[str, Any] = {
    "uuid": "6f1c2b1e-4e0f-4b52-9a44-0d4f8f3c7a10",
    "date-time": "2030-05-20T18:00:00+08:00",
    "date": "2030-05-20",
}
_OF_TYPE: dict[str, Any] = {"boolean": True, "string": "text", "number": 0.5}


def example_of(schema: Schema, resolve: Resolve, name: str = "") -> Any:
    """Return a value that the schema allows; `resolve` gives the schema behind a `$ref`."""
    if "$ref" in schema:
        return example_of(resolve(schema["$ref"]), resolve, name)
    for several in ("allOf", "oneOf", "anyOf"):
        if several in schema:
            return example_of(schema[several][0], resolve, name)
    return _of_type(schema, resolve, name)


def _of_type(schema: Schema, resolve: Resolve, name: str) -> Any:
    kind = schema.get("type", "object")
    if "enum" in schema:
        return next((value for value in schema["enum"] if value not in ("", None)), schema["enum"][0])
    if kind == "object":
        properties = schema.get("properties", {})
        made = {key: example_of(value, resolve, key) for key, value in properties.items()}
        return made or _BY_NAME.get(name, {})
    if kind == "array":
        return [example_of(schema["items"], resolve, name)]
    return _of_plain(schema, kind, name)


def _of_plain(schema: Schema, kind: str, name: str) -> Any:
    if schema.get("format") in _BY_FORMAT:
        return _BY_FORMAT[schema["format"]]
    if name in _BY_NAME and isinstance(_BY_NAME[name], str) == (kind == "string"):
        return _BY_NAME[name]
    if kind == "integer":
        return max(1, schema.get("minimum", 1))
    return _OF_TYPE[kind]
