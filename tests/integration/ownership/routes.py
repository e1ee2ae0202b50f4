"""Every route there is, as operations ("PUT /api/v1/task/update"): those of Django's URL conf and those of raw ASGI."""

import re
from dataclasses import dataclass

from django.urls import URLResolver, get_resolver

from chat.api.run_routes import CHAT_PATH
from smartflow.streams import Streams
from smartflow.web.app import live
from tests.integration.chat.raw_requests import Server

# Methods that a view class answers by itself with nothing of anybody's in it: HEAD is GET without its body.
_SILENT_METHODS = {"OPTIONS", "HEAD", "TRACE"}
ADMIN = "/admin/"
RUN_PATH = "/api/v1/agent/runs/{run_id}/"
_ANY_RUN = "00000000-0000-4000-8000-000000000000"


@dataclass(frozen=True, order=True)
class Operation:
    """One method of one route; the method of a view that is a function is not known, and written *."""

    method: str
    route: str

    def __str__(self):
        return f"{self.method} {self.route}"

    @property
    def parameters(self):
        """The names in its path."""
        return re.findall(r"\{(\w+)\}", self.route)

    @property
    def is_raw(self):
        """Tell whether raw ASGI serves it in place of Django."""
        return Streams.serves(self.route.replace("{run_id}", _ANY_RUN))


def django_patterns():
    """Return (route, view) of the whole URL conf; a path's parameters in braces."""
    return [(_readable(route), view) for route, view in _walk(get_resolver().url_patterns, "/")]


def operations():
    """Return all operations outside of the admin."""
    found = set(raw_operations())
    for route, view in django_patterns():
        if not route.startswith(ADMIN):
            found |= {Operation(method, route) for method in _methods_of(view)}
    return sorted(found)


def raw_operations():
    """Return the operations that raw ASGI serves: the live runs', and the page's stream."""
    yield Operation("GET", live.PATH)
    server = Server(database=None)
    for name, (method, _serve) in server.routes._routes.items():
        yield Operation(method, CHAT_PATH if name == "chat" else RUN_PATH + name)


def _walk(patterns, before):
    for pattern in patterns:
        route = before + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            yield from _walk(pattern.url_patterns, route)
        else:
            yield route, pattern.callback


def _readable(route):
    return re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", route)


def _methods_of(view):
    view_class = getattr(view, "view_class", None) or getattr(view, "cls", None)
    if view_class is None:
        return {"*"}
    actions = getattr(view, "actions", None)
    names = actions or [name for name in view_class.http_method_names if hasattr(view_class, name)]
    return {name.upper() for name in names} - _SILENT_METHODS
