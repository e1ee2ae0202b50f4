"""Documents every route as it really answers: data in its envelope, and the error codes grouped by HTTP status.

A view names what can go wrong in `error_codes`, on the class or, by `@documents_errors`, on one method. What any
route can answer (no token, a broken body, a database that is away) is added here, and so are headers and examples.
`is_enveloped = False` marks the few views that answer without an envelope.
"""

from collections import defaultdict
from collections.abc import Callable
from typing import Any, Literal, TypeVar

from django.utils.translation import gettext
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.plumbing import ResolvedComponent, force_instance
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse
from rest_framework import serializers

from smartflow.api import codes
from smartflow.api.schema_examples import example_of
from smartflow.api.schema_links import write_links
from smartflow.api.serializers import StrictSerializer

# What any body may be refused for, whatever its fields are: json_limits.py, and null in place of a value.
_BODY_CODES = (codes.MISSING, codes.WRONG, codes.TOO_LONG, codes.BODY_TOO_LARGE, codes.UNSUPPORTED_MEDIA_TYPE)
_WITH_BODY = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_ANY_CODES = (codes.UNEXPECTED, codes.UNAVAILABLE)
_STATUS = {"type": "string", "description": "A code of the code table, always as text."}
_INFO = {"type": "string", "description": "A sentence for people, in the language asked for."}
_ERROR = {
    "type": "object",
    "properties": {
        "status": _STATUS,
        "info": _INFO,
        "fields": {
            "type": "object",
            "additionalProperties": {"type": "string"},
            "description": "Which field is to blame, and what to do about it.",
        },
        "request_id": {"type": "string", "description": "Names this request in the logs."},
    },
    "required": ["status", "info", "request_id"],
}
IDEMPOTENCY_KEY = OpenApiParameter(
    "X-Idempotency-Key",
    {"type": "string", "minLength": 1, "maxLength": 128, "pattern": "^[!-~]+$"},
    OpenApiParameter.HEADER,
    required=True,
    description="Made up by the client for each new request, such as a UUID. A repetition with the same key within 24"
    " hours gets the first answer, with X-Idempotency-Replayed: true, and changes nothing.",
    examples=[OpenApiExample("a UUID", "6f1c2b1e-4e0f-4b52-9a44-0d4f8f3c7a10")],
)
_NO_DATA = {"type": "object", "x-no-data": True}
# An answer of these says which field is to blame.
_BLAMES_A_FIELD = frozenset({400, 422})
_WHOLE_NUMBER = {"type": "integer", "minimum": 0}
_HEADERS: dict[str, dict[str, Any]] = {
    "X-Request-ID": {
        "description": "Names this request in the logs.",
        "required": True,
        "schema": {"type": "string", "minLength": 1},
    },
    "WWW-Authenticate": {"description": "How to sign in.", "required": True, "schema": {"type": "string"}},
    "Retry-After": {
        "description": "Seconds after which the same request may succeed.",
        "required": True,
        "schema": {"type": "integer", "minimum": 1},
    },
    "RateLimit-Limit": {"description": "Requests that may come at once.", "schema": _WHOLE_NUMBER},
    "RateLimit-Remaining": {"description": "How many of them are left.", "schema": _WHOLE_NUMBER},
    "RateLimit-Reset": {"description": "Seconds until all are there again.", "schema": _WHOLE_NUMBER},
    "X-Idempotency-Replayed": {
        "description": "true: this is the answer that the key got before.",
        "schema": {"type": "string", "enum": ["true"]},
    },
}

Method = TypeVar("Method", bound=Callable[..., Any])


def documents_errors(*error_codes: str) -> Callable[[Method], Method]:
    """Name the codes one method of a view can answer with; they replace the view's."""

    def mark(method: Method) -> Method:
        method.error_codes = error_codes  # type: ignore[attr-defined]
        return method

    return mark


def no_data(description: str = "") -> OpenApiResponse:
    """Describe a success that carries no data."""
    return OpenApiResponse(response=_NO_DATA, description=description)


class EnvelopeAutoSchema(AutoSchema):
    """Adds the envelope and the error codes to what the view says about itself."""

    def _get_response_for_code(
        self,
        serializer: Any,
        status_code: str,
        media_types: Any = None,
        direction: Literal["request", "response"] = "response",
    ) -> dict[str, Any]:
        response: dict[str, Any] = super()._get_response_for_code(  # type: ignore[no-untyped-call]
            serializer, status_code, media_types, direction
        )
        content = response.get("content", {}).get("application/json")
        if content is not None:
            if getattr(serializer, "allow_null", False):
                content["schema"] = {"allOf": [content["schema"]], "nullable": True}
            self._show_success(content)
        if self._is_enveloped and status_code.startswith("2"):
            response["description"] = response["description"] or gettext("Success.")
        return response

    def _show_success(self, content: dict[str, Any]) -> None:
        """Give the content of a success an example, and both their envelope."""
        has_data = content["schema"] != _NO_DATA
        if "examples" not in content:
            content["examples"] = {"success": {"value": self._example_of(content["schema"]) if has_data else None}}
        if not self._is_enveloped:
            return
        content["schema"] = _enveloped(content["schema"])
        for example in content["examples"].values():
            data = {"data": example["value"]} if has_data else {}
            example["value"] = {"status": codes.OK, "info": "success", **data}

    def _get_request_body(self, direction: Literal["request", "response"] = "request") -> Any:
        body = super()._get_request_body(direction)  # type: ignore[no-untyped-call]
        for content in (body or {}).get("content", {}).values():
            content.setdefault("examples", {"request": {"value": self._example_of(content["schema"])}})
        return body

    def _example_of(self, schema: dict[str, Any]) -> Any:
        return example_of(schema, lambda reference: self._component(reference.rpartition("/")[2]))

    def _component(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.registry._components[name, ResolvedComponent.SCHEMA].schema
        return found

    def _map_serializer_field(self, field: Any, direction: Any, bypass_extensions: bool = False) -> Any:
        """Say of a request's field that it may not be blank or empty: the library says so of split components only."""
        schema = super()._map_serializer_field(field, direction, bypass_extensions)  # type: ignore[no-untyped-call]
        if not isinstance(field.parent, StrictSerializer) or not schema:
            return schema
        is_plain_text = schema.get("type") == "string" and not schema.keys() & {"enum", "format", "pattern"}
        if isinstance(field, serializers.CharField) and is_plain_text and not field.allow_blank:
            schema["minLength"] = 1
            if field.trim_whitespace:
                schema["pattern"] = r"\S"
        if isinstance(field, serializers.ListField) and not field.allow_empty:
            schema["minItems"] = 1
        return schema

    def _map_basic_serializer(self, serializer: Any, direction: Any) -> Any:
        """Say of a request's shape that it takes no other fields."""
        schema = super()._map_basic_serializer(serializer, direction)  # type: ignore[no-untyped-call]
        if isinstance(serializer, StrictSerializer):
            schema["additionalProperties"] = False
        return schema

    def _get_response_bodies(self, direction: Literal["request", "response"] = "response") -> dict[str, Any]:
        responses: dict[str, Any] = super()._get_response_bodies(direction)
        if self._is_enveloped:
            self._add_errors(responses)
        links = write_links(getattr(self._method, "links", ()))
        for status, response in responses.items():
            if "$ref" not in response:
                self._add_headers(status, response)
            if links and status.startswith("2"):
                response["links"] = links
        return responses

    def _add_headers(self, status: str, response: dict[str, Any]) -> None:
        own = response.get("headers", {})
        added = sorted(self._headers(status) - own.keys())
        response["headers"] = own | {
            name: self._register(name, ResolvedComponent.HEADER, _HEADERS[name]) for name in added
        }

    def _add_errors(self, responses: dict[str, Any]) -> None:
        grouped: dict[int, list[codes.Code]] = defaultdict(list)
        for code in sorted(self._error_codes()):
            grouped[codes.CODES[code].http_status].append(codes.CODES[code])
        for status, rows in sorted(grouped.items()):
            told = self._error_response(rows)
            if str(status) in responses:
                _offer(responses[str(status)], told)
                continue
            self._add_headers(str(status), told)
            name = "_".join(["Error", *(row.code for row in rows)])
            responses[str(status)] = self._register(name, ResolvedComponent.RESPONSE, told)

    def _headers(self, status: str) -> set[str]:
        """Return the headers that an answer of this status has, or may have."""
        found = {"X-Request-ID"}
        if self._is_enveloped:
            found |= {"WWW-Authenticate"} if status == "401" else set()
            found |= {"Retry-After"} if status in {"429", "503"} else set()
        if self.view.get_throttles() and (status.startswith("2") or status == "429"):
            found |= {"RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset"}
        if self._needs_key and status.startswith("2"):
            found.add("X-Idempotency-Replayed")
        return found

    @property
    def _is_enveloped(self) -> bool:
        return bool(getattr(self.view, "is_enveloped", True))

    @property
    def _needs_key(self) -> bool:
        return self.method.lower() in getattr(self.view, "idempotent_methods", ())

    def get_override_parameters(self) -> list[Any]:
        """Add the key that repeatable writes need."""
        parameters = list(super().get_override_parameters())
        return [*parameters, IDEMPOTENCY_KEY] if self._needs_key else parameters

    @property
    def _method(self) -> Any:
        return getattr(self.view, getattr(self.view, "action", None) or self.method.lower(), None)

    def _error_codes(self) -> set[str]:
        own = getattr(self._method, "error_codes", None)
        found = set(getattr(self.view, "error_codes", ()) if own is None else own) | set(_ANY_CODES)
        if self.view.get_authenticators():
            found |= set(codes.AUTHENTICATION_CODES)
        if self.view.get_throttles():
            found.add(codes.TOO_MANY_REQUESTS)
        if self._needs_key:
            found |= set(codes.IDEMPOTENCY_CODES)
        # What tells a repetition from another request is the body, too: one that is not asked for is read all the same.
        if self._needs_key or (self.method in _WITH_BODY and self.get_request_serializer() is not None):
            found |= set(_BODY_CODES)
        for parameter in self.get_override_parameters():
            found |= _codes_of_parameter(parameter)
        if "{" in self.path:
            found.add(codes.NOT_FOUND)  # a path that no route's pattern matches
        return found

    def _register(self, name: str, kind: str, content: dict[str, Any]) -> dict[str, str]:
        component = ResolvedComponent(name=name, type=kind, schema=content, object=name)  # type: ignore[no-untyped-call]
        self.registry.register_on_missing(component)
        return component.ref

    def _error_response(self, rows: list[codes.Code]) -> dict[str, Any]:
        reference = self._register("Error", ResolvedComponent.SCHEMA, _ERROR)
        only_these = {"type": "object", "properties": {"status": {"type": "string", "enum": [r.code for r in rows]}}}
        if rows[0].http_status in _BLAMES_A_FIELD:
            only_these["required"] = ["fields"]
        examples = {row.code: self._register(row.code, ResolvedComponent.EXAMPLE, _example_of(row)) for row in rows}
        return {
            "description": "\n".join(f"- `{row.code}` {gettext(row.meaning)}" for row in rows),
            "content": {"application/json": {"schema": {"allOf": [reference, only_these]}, "examples": examples}},
        }


def _codes_of_parameter(parameter: Any) -> set[str]:
    """Return what a documented parameter may be refused for; the fields of a serializer stand in the query."""
    if isinstance(parameter, OpenApiParameter):
        is_query = parameter.location == OpenApiParameter.QUERY
        return {codes.WRONG} if is_query else set()
    found = {codes.WRONG}
    for field in force_instance(parameter).fields.values():  # type: ignore[no-untyped-call]
        is_text = isinstance(field, serializers.CharField)
        if field.required or (is_text and not field.allow_blank):
            found.add(codes.MISSING)
        if is_text and field.max_length is not None:
            found.add(codes.TOO_LONG)
    return found


def _example_of(row: codes.Code) -> dict[str, Any]:
    value: dict[str, Any] = {"status": row.code, "info": gettext(row.meaning)}
    if row.http_status in _BLAMES_A_FIELD:
        value["fields"] = {"title": gettext(row.meaning)}
    return {"value": {**value, "request_id": "6f1c2b1e-4e0f-4b52-9a44-0d4f8f3c7a10"}}


def _offer(response: dict[str, Any], informational: dict[str, Any]) -> None:
    """Let a success be an informational code too, which has no data."""
    response["description"] = f"{response['description']}\n{informational['description']}"
    content = response["content"]["application/json"]
    told = informational["content"]["application/json"]
    content["schema"] = {"anyOf": [content["schema"], told["schema"]]}
    content["examples"] = content["examples"] | told["examples"]


def _enveloped(schema: dict[str, Any]) -> dict[str, Any]:
    properties: dict[str, Any] = {"status": {"type": "string", "enum": [codes.OK]}, "info": _INFO}
    required = ["status", "info"]
    if schema != _NO_DATA:
        properties["data"] = schema
        required.append("data")
    return {"type": "object", "properties": properties, "required": required}


class SessionTokenScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """Describes the access token. Named by its path: the edge stands below the accounts."""

    target_class = "smartflow.accounts.api.authentication.SessionTokenAuthentication"
    name = "accessToken"

    def get_security_definition(self, auto_schema: AutoSchema) -> dict[str, str]:
        """Return the scheme as OpenAPI writes it."""
        return {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
