"""Gives the raw ASGI routes what Django's middlewares give its own: CORS, security headers, the redirect to TLS.

By the same middlewares, asked about an empty answer before the route begins: nothing of it lasts as long as a stream.
"""

import io
from collections.abc import Awaitable, Callable, MutableMapping
from functools import lru_cache
from typing import Any

from corsheaders.middleware import CorsMiddleware
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.middleware.security import SecurityMiddleware

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = tuple[tuple[bytes, bytes], ...]


def _nothing(request: HttpRequest) -> HttpResponseBase:
    return HttpResponse()


class RawEdge:
    """An ASGI application around the raw routes."""

    def __init__(self, routes: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        self._routes = routes
        self._cors = CorsMiddleware(_nothing)
        self._security = SecurityMiddleware(_nothing)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        instead, headers = self._ask(scope)
        if instead is not None:
            await send({"type": "http.response.start", "status": instead, "headers": list(headers)})
            await send({"type": "http.response.body", "body": b""})
            return

        async def send_with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *headers]}
            await send(message)

        # A stream unwraps it behind its head: the events of ten thousand readers need no headers.
        send_with_headers.__wrapped__ = send  # type: ignore[attr-defined]
        await self._routes(scope, receive, send_with_headers)

    def _ask(self, scope: Scope) -> tuple[int | None, Headers]:
        """Return what to answer instead of the route, if anything, and the headers to answer with."""
        request = ASGIRequest(scope, io.BytesIO())
        instead = self._security.process_request(request) or self._cors.check_preflight(request)
        answer = instead or HttpResponse()
        self._cors.add_response_headers(request, answer)
        assert isinstance(answer, HttpResponse)
        self._security.process_response(request, answer)
        if instead is None:
            del answer["Content-Type"]
        headers = tuple((name.lower().encode(), value.encode("latin-1")) for name, value in answer.items())
        return (None if instead is None else instead.status_code), _shared(headers)


@lru_cache(maxsize=64)
def _shared(headers: Headers) -> Headers:
    """Return the same headers for all answers that have equal ones: an open stream keeps them."""
    return headers
