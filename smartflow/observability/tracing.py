"""W3C trace context of requests: what one brings is taken over when it is well-formed.

Rows and messages carry it on (outbox/tracing.py); spans leave through span_export.py. Off until
settings.TRACES_ENDPOINT names a collector.
"""

import contextvars
from collections.abc import Callable

from django.conf import settings
from django.core.exceptions import MiddlewareNotUsed
from django.http import HttpRequest, HttpResponse
from opentelemetry import context, trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

HEADER = "traceparent"
_W3C = TraceContextTextMapPropagator()


def read_traceparent(offered: str | None) -> context.Context:
    """Return the context that a `traceparent` names; a fresh one when it is absent or malformed."""
    return _W3C.extract({HEADER: offered} if offered else {}, context=context.Context())


def accept_traceparent(offered: str | None, *, name: str) -> None:
    """
    Make the offered trace, or a new one, the current request's.

    For the raw ASGI streams, which have no moment at which they are over: their span marks the arrival only.
    """
    if settings.TRACES_ENDPOINT:
        tracer = trace.get_tracer("smartflow.http")
        span = tracer.start_span(name, context=read_traceparent(offered), kind=trace.SpanKind.SERVER)
        context.attach(trace.set_span_in_context(span))
        span.end()


def fresh_context() -> contextvars.Context:
    """Return an empty context for work that outlives its request; of the request's it holds the trace alone."""
    fresh = contextvars.Context()
    if settings.TRACES_ENDPOINT:
        fresh.run(context.attach, context.get_current())
    return fresh


class TraceMiddleware:
    """Gives each of Django's requests a span, in the caller's trace when it names one."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        if not settings.TRACES_ENDPOINT:
            raise MiddlewareNotUsed
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        parent = read_traceparent(request.headers.get(HEADER))
        tracer = trace.get_tracer("smartflow.http")
        method = request.method or "GET"
        with tracer.start_as_current_span(method, context=parent, kind=trace.SpanKind.SERVER) as span:
            response = self.get_response(request)
            if request.resolver_match is not None:
                # the pattern, never the path: it would be another name for every row
                span.update_name(f"{method} /{request.resolver_match.route}")
            span.set_attribute("http.response.status_code", response.status_code)
        return response
