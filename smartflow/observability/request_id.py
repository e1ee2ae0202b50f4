"""One id per request: in every answer, every log line and every row the request wrote.

A caller may bring its own `X-Request-ID`; anything but 8 to 64 plain characters is replaced, because the id is
written to logs.
"""

import re
from collections.abc import Callable
from contextvars import ContextVar

from django.http import HttpRequest, HttpResponse

from smartflow.kernel.ids import new_uuid

HEADER = "X-Request-ID"
_PLAIN = re.compile(r"[A-Za-z0-9._-]{8,64}")
_current: ContextVar[str] = ContextVar("request_id", default="")


def current_request_id() -> str:
    """Return the id of the request being served, or an empty text outside one."""
    return _current.get()


def accept_request_id(offered: str | None) -> str:
    """Make the offered id, or a new one, the current request's, and return it."""
    request_id = offered if offered and _PLAIN.fullmatch(offered) else new_uuid()
    _current.set(request_id)
    return request_id


class RequestIdMiddleware:
    """Gives Django's requests their id. The raw ASGI streams call accept_request_id themselves."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        request_id = accept_request_id(request.headers.get(HEADER))
        response = self.get_response(request)
        response[HEADER] = request_id
        return response
