"""HTTP for the raw ASGI routes: what a request brings, and an answer that is no stream. Knows no conversation."""

from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.utils import translation
from django.utils.translation.trans_real import parse_accept_lang_header
from rest_framework.exceptions import MethodNotAllowed

from smartflow.api.client_address import client_address
from smartflow.api.envelope import to_json
from smartflow.api.exception_handler import error_response, log_failure
from smartflow.observability.request_id import accept_request_id
from smartflow.observability.tracing import accept_traceparent

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class _MethodNotAllowed(MethodNotAllowed):
    def __init__(self, method: str, allowed: tuple[str, ...]) -> None:
        super().__init__(method)
        self.allowed = ", ".join(allowed)


class ClientDisconnected(Exception):
    """The client left before its request was complete: there is nobody to answer and nothing was written."""


@dataclass(frozen=True, slots=True)
class RawRequest:
    """One request, its headers by lower-case name; of a name that comes twice, the last."""

    method: str
    headers: dict[str, str]
    query: dict[str, str]
    request_id: str
    language: str
    receive: Receive
    address: str | None = None
    # What every answer to this request carries.
    answer_headers: dict[str, str] = field(default_factory=dict)

    @property
    def authorization(self) -> str | None:
        """The header that says who is asking."""
        return self.headers.get("authorization")

    def check_method(self, *allowed: str) -> None:
        """Raise MethodNotAllowed unless it is one of these."""
        if self.method not in allowed:
            raise _MethodNotAllowed(self.method, allowed)

    async def body(self) -> bytes:
        """Return the whole body. Raises: ClientDisconnected; RequestDataTooBig."""
        parts: list[bytes] = []
        size = 0
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnected
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
                raise RequestDataTooBig
            if not message.get("more_body", False):
                return b"".join(parts)


def read_request(scope: Scope, receive: Receive, *, route: str) -> RawRequest:
    """Return the request, its id, its language and its trace made the current ones of this task."""
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
    request_id = accept_request_id(headers.get("x-request-id"))
    accept_traceparent(headers.get("traceparent"), name=f"{scope['method']} {route}")
    language = _language(headers.get("accept-language", ""))
    # For this request's task alone: the server gives each its own context, and the database's threads copy it.
    translation.activate(language)
    query = dict(parse_qsl(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True))
    peer = (scope.get("client") or (None,))[0]
    address = client_address(peer=peer, forwarded_for=headers.get("x-forwarded-for"))
    return RawRequest(scope["method"], headers, query, request_id, language, receive, address)


async def send_error(send: Send, error: Exception, request: RawRequest) -> None:
    """Answer an error as every other route does."""
    status, answer, extra = error_response(error)
    log_failure(error, status)
    if isinstance(error, _MethodNotAllowed):
        extra |= {"Allow": error.allowed}
    await send_json(send, status, answer, request.request_id, request.answer_headers | extra)


async def send_json(
    send: Send, status: int, body: dict[str, Any], request_id: str, extra: dict[str, str] | None = None
) -> None:
    """Send one whole answer."""
    content = to_json(body)
    headers = {
        "Content-Type": "application/json",
        "Content-Length": str(len(content)),
        "X-Request-ID": request_id,
        **(extra or {}),
    }
    pairs = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": content})


def stream_head(request: RawRequest, **ids: str) -> dict[str, Any]:
    """Return the beginning of a stream's answer; nothing between here and the reader may hold it back or change it."""
    headers = {f"x-{name.replace('_', '-')}": value for name, value in ids.items()} | request.answer_headers
    named = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    return {
        "type": "http.response.start",
        "status": 200,
        "headers": [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-cache, no-transform"),
            (b"x-accel-buffering", b"no"),
            (b"content-encoding", b"identity"),
            *named,
            (b"x-request-id", request.request_id.encode()),
        ],
    }


def _language(accept: str) -> str:
    """Return the first language of the header that there is a translation for."""
    for name, _quality in parse_accept_lang_header(accept):
        try:
            return translation.get_supported_language_variant(name)
        except LookupError:
            continue
    return settings.LANGUAGE_CODE
