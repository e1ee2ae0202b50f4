"""Django as an ASGI application whose requests are each answered by one thread, from the first middleware to the last.

Django's own handler begins a thread for every request, and with it a connection to the database, and goes back to the
event loop between one middleware and the next: together that takes longer than most of our views do. Here requests
borrow a thread of database_threads.py for their whole length, with its connection. Used by asgi.py.
"""

from collections.abc import AsyncIterator, Iterable
from typing import IO, Any

from django.core import signals
from django.core.exceptions import RequestAborted
from django.core.handlers.asgi import ASGIHandler, get_script_prefix
from django.db import connections
from django.http.response import HttpResponseBase
from django.urls import set_script_prefix

from smartflow.api.database_threads import DatabaseThreads

# More: more requests wait for the database at once, and hold more connections to it. Fewer: slow ones hold up others.
THREADS = 32


class ThreadedDjango(ASGIHandler):
    """
    The application. One per process.

    A request whose client has gone is answered all the same: its thread could not be stopped anyway.
    """

    def __init__(self) -> None:
        super().__init__()
        self._threads = DatabaseThreads(threads=THREADS)
        for connection in connections.settings.values():
            connection["CONN_MAX_AGE"] = None  # DatabaseThreads says how long one is kept, and when it is doubtful

    def load_middleware(self, is_async: bool = False) -> None:
        """Put the middlewares together for threads, whatever the handler this one comes from asks for."""
        super().load_middleware(is_async=False)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        try:
            body = await self.read_body(receive)
        except RequestAborted:
            return
        response = await self._threads.run(self._respond, scope, body)
        await self.send_response(response, send)
        if _goes_on(response):
            await self._threads.run(response.close)

    def close(self) -> None:
        """End the threads and close their connections; waits for requests that were taken."""
        self._threads.close()

    def _respond(self, scope: Any, body: IO[bytes]) -> HttpResponseBase:
        """Return the whole answer, with nothing left to do for it but sending."""
        with body:
            set_script_prefix(get_script_prefix(scope))
            signals.request_started.send(sender=type(self), scope=scope)
            request, refused = self.create_request(scope, body)
            response = self.get_response(request) if request is not None else refused
            assert response is not None
            if _goes_on(response):
                return response
            if response.streaming:
                response.streaming_content = _in_turn(list(response))  # type: ignore[attr-defined]
            response.close()
            return response


def _goes_on(response: HttpResponseBase) -> bool:
    """Tell whether the answer is made while it is sent."""
    return bool(getattr(response, "is_async", False))


async def _in_turn(parts: Iterable[bytes]) -> AsyncIterator[bytes]:
    for part in parts:
        yield part
