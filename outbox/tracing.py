"""One trace shows an event's way: write → wait → publish → consume. Off until settings.TRACES_ENDPOINT is set.

The row keeps the `traceparent` of its append, the message that of its publishing. A repeated publish stays in the same
trace and is linked with the append; so a retry, a rescan and a requeued dead letter are seen as what they are.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Protocol

from django.conf import settings
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

Headers = tuple[tuple[str, bytes], ...]

_HEADER = "traceparent"
_W3C = TraceContextTextMapPropagator()
_MOST_LINKS = 128  # the SDK keeps no more


class Row(Protocol):
    """What is told of a row that is published."""

    @property
    def id(self) -> int: ...
    @property
    def event_id(self) -> str: ...
    @property
    def biz_type(self) -> str: ...
    @property
    def retry_count(self) -> int: ...
    @property
    def traceparent(self) -> str: ...
    @property
    def created_at(self) -> datetime: ...
    @property
    def published_at(self) -> datetime | None: ...


class Delivered(Protocol):
    """What is told of a message that is handled."""

    @property
    def topic(self) -> str: ...
    @property
    def headers(self) -> Headers: ...


def note_append(event_type: str) -> str:
    """Return the `traceparent` for a row that is being written, below the current span; empty when tracing is off."""
    if not settings.TRACES_ENDPOINT:
        return ""
    with _tracer().start_as_current_span(f"append {event_type}", kind=SpanKind.PRODUCER) as span:
        return _format(span)


class PublishSpans:
    """The spans of one batch on its way to the broker; holds none when tracing is off."""

    def __init__(self) -> None:
        self._is_on = bool(settings.TRACES_ENDPOINT)
        self._spans: dict[int, Span] = {}

    def start(self, row: Row) -> Headers:
        """Begin the span of a row that is sent now, and return what its message carries."""
        if not self._is_on or not row.traceparent:
            return ()
        span = self._spans[row.id] = _start_publish(row)
        return ((_HEADER, _format(span).encode()),)

    def end(self, failures: Mapping[int, object]) -> None:
        """End every span; those of the given rows as failures."""
        for outbox_id, span in self._spans.items():
            if outbox_id in failures:
                span.set_status(Status(StatusCode.ERROR, "not acknowledged"))
            span.end()
        self._spans = {}


def _start_publish(row: Row) -> Span:
    written = _read(row.traceparent)
    is_repeated = row.retry_count > 0 or row.published_at is not None
    if not is_repeated:
        waited_from = int(row.created_at.timestamp() * 1e9)
        _tracer().start_span(f"wait {row.biz_type}", context=written, start_time=waited_from).end()
    append_span = trace.get_current_span(written).get_span_context()
    return _tracer().start_span(
        f"publish {row.biz_type}",
        context=written,
        kind=SpanKind.PRODUCER,
        links=[Link(append_span, {"outbox.repeated": True})] if is_repeated else None,
        attributes={"outbox.id": row.id, "outbox.event_id": row.event_id, "outbox.attempt": row.retry_count + 1},
    )


class HandlingSpans:
    """The spans of one batch of messages while they are handled."""

    def __init__(self, spans: Sequence[Span]) -> None:
        self._spans = spans

    def note(self, outcomes: Sequence[str]) -> None:
        """Write on each span what became of its message."""
        for span, outcome in zip(self._spans, outcomes, strict=False):
            span.set_attribute("outbox.outcome", str(outcome))


@contextmanager
def handling(deliveries: Sequence[Delivered]) -> Iterator[HandlingSpans]:
    """
    Give each message a span below its publishing while the block handles them all.

    The current span inside the block is the message's when there is one, else a batch's that is linked with them all.
    """
    if not settings.TRACES_ENDPOINT:
        yield _NO_SPANS
        return
    spans = [_start_handle(delivery) for delivery in deliveries]
    try:
        with trace.use_span(_current_of(spans), end_on_exit=len(spans) != 1):
            yield HandlingSpans(spans)
    finally:
        for span in spans:
            span.end()


_NO_SPANS = HandlingSpans(())


def _start_handle(delivery: Delivered) -> Span:
    published = _read(dict(delivery.headers).get(_HEADER, b"").decode("latin-1"))
    return _tracer().start_span(f"handle {delivery.topic}", context=published, kind=SpanKind.CONSUMER)


def _current_of(spans: Sequence[Span]) -> Span:
    if len(spans) == 1:
        return spans[0]
    links = [Link(span.get_span_context()) for span in spans[:_MOST_LINKS]]
    return _tracer().start_span("handle batch", context=Context(), links=links)


def _tracer() -> trace.Tracer:
    return trace.get_tracer("outbox")


def _read(traceparent: str) -> Context:
    return _W3C.extract({_HEADER: traceparent}, context=Context())


def _format(span: Span) -> str:
    carrier: dict[str, str] = {}
    _W3C.inject(carrier, context=trace.set_span_in_context(span, Context()))
    return carrier.get(_HEADER, "")
