"""ASGI entry point: the routes of live runs beside Django, everything else through it.

The executor lives here, in the web process; it is made when the server starts and given a moment to end its runs when
the server stops.
"""

import os
import socket

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "smartflow.settings")
django.setup(set_prefix=False)

# Django must be set up before anything that imports models.
from smartflow.api.django_threads import ThreadedDjango  # noqa: E402
from smartflow.api.raw_edge import RawEdge  # noqa: E402
from smartflow.streams import Streams  # noqa: E402

_django = ThreadedDjango()
_streams = Streams(owner=f"{socket.gethostname()}:{os.getpid()}")
_raw_routes = RawEdge(_streams.answer)


async def application(scope, receive, send):  # type: ignore[no-untyped-def]
    """Route one connection."""
    if scope["type"] == "lifespan":
        await _streams.live(receive, send)
        _django.close()
    elif scope["type"] == "http" and _streams.serves(scope["path"]):
        await _raw_routes(scope, receive, send)
    else:
        await _django(scope, receive, send)
