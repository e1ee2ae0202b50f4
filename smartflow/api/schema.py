"""Documents every route as it really answers: data in its envelope, and the error codes grouped by HTTP status.

A view names what can go wrong in `error_codes`, on the class or, by `@documents_errors`, on one method. What any
route can answer (no token, a broken body, a database that is away) is added here. `is_enveloped = False` marks the
few views that answer without an envelope.
"""

from collections import defaultdict
from collections.abc import Callable
from typing import Any, Literal, TypeVar

from django.utils.translation import gettext
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.plumbing import ResolvedComponent
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse

from smartflow.api import codes

_BODY_CODES = (codes.WRONG, codes.BODY_TOO_LARGE, codes.UNSUPPORTED_MEDIA_TYPE)
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
        if self._is_enveloped and status_code.startswith("2"):
            for media_type, content in response.get("content", {}).items():
                if media_type == "application/json":
                    content["schema"] = _enveloped(content["schema"])
            response["description"] = response["description"] or gettext("Success.")
        return response

    def _get_response_bodies(self, direction: Literal["request", "response"] = "response") -> dict[str, Any]:
        responses: dict[str, Any] = super()._get_response_bodies(direction)
        if not self._is_enveloped:
            return responses
        grouped: dict[int, list[codes.Code]] = defaultdict(list)
        for code in sorted(self._error_codes()):
            grouped[codes.CODES[code].http_status].append(codes.CODES[code])
        for status, rows in sorted(grouped.items()):
            told = self._error_response(rows)
            if str(status) not in responses:
                responses[str(status)] = told
            else:
                _offer(responses[str(status)], told)
        return responses

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

    def _error_codes(self) -> set[str]:
        method = getattr(self.view, getattr(self.view, "action", None) or self.method.lower(), None)
        own = getattr(method, "error_codes", None)
        found = set(getattr(self.view, "error_codes", ()) if own is None else own) | set(_ANY_CODES)
        if self.view.get_authenticators():
            found |= set(codes.AUTHENTICATION_CODES)
        if self.view.get_throttles():
            found.add(codes.TOO_MANY_REQUESTS)
        if self._needs_key:
            found |= set(codes.IDEMPOTENCY_CODES)
        if self.method in {"POST", "PUT", "PATCH", "DELETE"} and self.get_request_serializer() is not None:
            found |= set(_BODY_CODES)
        return found

    def _error_response(self, rows: list[codes.Code]) -> dict[str, Any]:
        component = ResolvedComponent(  # type: ignore[no-untyped-call]
            name="Error", type=ResolvedComponent.SCHEMA, schema=_ERROR, object="Error"
        )
        self.registry.register_on_missing(component)
        only_these = {"type": "object", "properties": {"status": {"type": "string", "enum": [r.code for r in rows]}}}
        return {
            "description": "\n".join(f"- `{row.code}` {gettext(row.meaning)}" for row in rows),
            "content": {"application/json": {"schema": {"allOf": [component.ref, only_these]}}},
        }


def _offer(response: dict[str, Any], informational: dict[str, Any]) -> None:
    """Let a success be an informational code too, which has no data."""
    response["description"] = f"{response['description']}\n{informational['description']}"
    content = response["content"]["application/json"]
    content["schema"] = {"anyOf": [content["schema"], informational["content"]["application/json"]["schema"]]}


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
