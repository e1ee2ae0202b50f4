"""outbox/tracing.py: one trace from request to handler, through retries and requeues; nothing when it is off."""

import contextvars
import time

import pytest
from django.core.exceptions import MiddlewareNotUsed
from django.db import transaction
from django.http import HttpResponse
from django.test import RequestFactory
from opentelemetry import context, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from outbox import registry, tracing
from outbox.append import NewEvent, append_events
from outbox.models import Status
from outbox.registry import topic_for
from outbox.testing import drain
from outbox.transports import Delivery
from smartflow.observability.tracing import TraceMiddleware, accept_traceparent, fresh_context
from tests.outbox_rows import EVENT_TYPE, NOW, append, change, make_event, row_of

pytestmark = pytest.mark.django_db
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
GIVEN = f"00-{TRACE}-{SPAN}-01"


@pytest.fixture
def spans(settings, monkeypatch):
    """Turn tracing on for the test, and return a function that gives the ended spans by name."""
    settings.TRACES_ENDPOINT = "http://127.0.0.1:1"
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    # the global provider can be set once in a process
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)

    def ended():
        found = {}
        for span in exporter.get_finished_spans():
            found.setdefault(span.name, []).append(span)
        return found

    yield ended
    provider.shutdown()


@pytest.fixture
def seen(handler, monkeypatch):
    """Return the trace ids that the handler ran under."""
    ids = []

    def note(event, *, event_id):
        ids.append(trace.get_current_span().get_span_context().trace_id)
        handler(event, event_id=event_id)

    monkeypatch.setitem(registry._handlers, EVENT_TYPE, note)
    return ids


def number(trace_id: str) -> int:
    return int(trace_id, 16)


def request(**headers):
    """Serve one request that appends an event, and return the event's row."""

    def view(request):
        return HttpResponse(str(append()))

    response = TraceMiddleware(view)(RequestFactory().post("/x", headers=headers))
    return row_of(int(response.content))


def test_one_trace_shows_request_append_wait_publish_and_handle(spans, seen):
    row = request(traceparent=GIVEN)
    drain()

    ended = spans()
    names = ["POST", f"append {EVENT_TYPE}", f"wait {EVENT_TYPE}", f"publish {EVENT_TYPE}", f"handle {row.topic}"]
    assert sorted(ended) == sorted(names)
    http, appended, waited, published, handled = (ended[name][0] for name in names)
    assert {span.context.trace_id for span in (http, appended, waited, published, handled)} == {number(TRACE)}
    assert seen == [number(TRACE)]
    assert http.parent.span_id == number(SPAN)
    parents = [span.parent.span_id for span in (appended, waited, published, handled)]
    assert parents == [http.context.span_id, *[appended.context.span_id] * 2, published.context.span_id]
    assert row.traceparent == f"00-{TRACE}-{appended.context.span_id:016x}-01"
    assert waited.start_time == int(NOW.timestamp() * 1e9)
    assert handled.attributes["outbox.outcome"] == "consumed"
    assert not any(span.links for span in (waited, published, handled))


def test_an_event_without_a_request_begins_a_trace(spans, seen):
    append()
    drain()

    [appended] = spans()[f"append {EVENT_TYPE}"]
    assert appended.parent is None
    assert seen == [appended.context.trace_id]


@pytest.mark.parametrize(
    "offered",
    [
        None,
        "",
        "nonsense",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"{GIVEN}-more",
        f"00-{TRACE}-{SPAN}-zz",
        GIVEN + "x" * 10_000,
    ],
)
def test_a_malformed_traceparent_is_replaced(spans, offered):
    row = request(**({} if offered is None else {"traceparent": offered}))

    assert TRACE not in row.traceparent
    assert len(row.traceparent) == 55
    [http] = spans()["POST"]
    assert http.parent is None


def test_a_caller_that_does_not_record_is_followed(spans):
    row = request(traceparent=f"00-{TRACE}-{SPAN}-00")

    assert row.traceparent.startswith(f"00-{TRACE}-")
    assert row.traceparent.endswith("-00")
    assert spans() == {}


def test_a_retry_and_a_requeue_stay_in_the_trace_and_are_linked_with_the_append(spans, seen, handler):
    handler.error = ValueError("not now")
    pk = append()
    drain()
    for _ in ("retry", "requeue"):
        change(pk, status=Status.PENDING, next_retry_at=None, ready_shard=row_of(pk).shard)
        handler.error = None if row_of(pk).retry_count > 1 else handler.error
        drain()

    ended = spans()
    [appended] = ended[f"append {EVENT_TYPE}"]
    published = ended[f"publish {EVENT_TYPE}"]
    assert {span.context.trace_id for group in ended.values() for span in group} == {appended.context.trace_id}
    assert [span.attributes["outbox.attempt"] for span in published] == [1, 2, 3]
    assert [[link.context.span_id for link in span.links] for span in published] == [
        [],
        [appended.context.span_id],
        [appended.context.span_id],
    ]
    outcomes = [span.attributes["outbox.outcome"] for span in ended[f"handle {row_of(pk).topic}"]]
    assert outcomes == ["retry", "retry", "consumed"]
    assert len(ended[f"wait {EVENT_TYPE}"]) == 1


def test_messages_of_a_batch_stay_in_their_own_traces(spans, seen):
    with transaction.atomic():
        append_events(events=[NewEvent(event=make_event(), key=f"k{n}") for n in range(3)], now=NOW)
    drain()

    ended = spans()
    traces = {span.context.trace_id for span in ended[f"append {EVENT_TYPE}"]}
    assert len(traces) == 3
    assert {span.context.trace_id for span in ended[f"handle {topic_for(EVENT_TYPE)}"]} == traces
    [batch] = ended["handle batch"]
    assert {link.context.trace_id for link in batch.links} == traces
    assert set(seen) == {batch.context.trace_id}


def test_a_message_with_a_header_of_nonsense_is_handled(spans):
    delivery = Delivery(topic="t", partition=0, offset=1, key="k", value=b"", headers=(("traceparent", b"\xff\x00"),))

    with tracing.handling([delivery]) as handling:
        handling.note(["unreadable"])

    [span] = spans()["handle t"]
    assert (span.parent, span.attributes["outbox.outcome"]) == (None, "unreadable")


def test_a_failed_publish_is_a_failed_span(spans):
    row = row_of(append())
    published = tracing.PublishSpans()
    published.start(row)
    published.end({row.pk: "no acknowledgement in time"})

    [span] = spans()[f"publish {EVENT_TYPE}"]
    assert not span.status.is_ok


def test_a_streams_request_is_taken_over_and_handed_on(spans):
    def stream():
        accept_traceparent(GIVEN, name="POST /chat")
        return fresh_context()

    other = contextvars.ContextVar("other", default="nothing")
    other.set("of the request")
    fresh = contextvars.copy_context().run(stream)

    assert fresh.run(other.get) == "nothing"
    assert row_of(fresh.run(append)).traceparent.startswith(f"00-{TRACE}-")
    [arrived] = spans()["POST /chat"]
    assert arrived.parent.span_id == number(SPAN)


def test_nothing_is_traced_when_it_is_off(seen, settings):
    assert settings.TRACES_ENDPOINT == ""
    accept_traceparent(GIVEN, name="POST /chat")
    pk = append()
    drain()

    assert (row_of(pk).traceparent, row_of(pk).status, seen) == ("", Status.CONSUMED, [0])
    assert context.get_current() == {}
    with pytest.raises(MiddlewareNotUsed):
        TraceMiddleware(lambda request: HttpResponse())


def test_being_off_costs_nothing_measurable():
    row = row_of(append())
    delivery = Delivery(topic="t", partition=0, offset=1, key="k", value=b"")

    def seconds() -> float:
        started = time.process_time()
        for _ in range(2000):
            tracing.note_append(EVENT_TYPE)
            spans = tracing.PublishSpans()
            spans.start(row)
            spans.end({})
            with tracing.handling([delivery]) as handling:
                handling.note(["consumed"])
        return time.process_time() - started

    # every step of one event, alone in its batch; in a batch the last two are shared
    assert min(seconds() for _ in range(3)) / 2000 < 20e-6
