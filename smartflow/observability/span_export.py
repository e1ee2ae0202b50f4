"""Sends this process's spans to the collector that settings.TRACES_ENDPOINT names. Loaded only when there is one.

Spans leave from a thread in the background, in batches; while the collector is away they are dropped, nothing waits.
"""

from django.conf import settings
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor


def start() -> None:
    """Make the provider that records; the sampler and the exporter's limits come from OpenTelemetry's own variables."""
    provider = TracerProvider(resource=_describe_this())
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


def _describe_this() -> Resource:
    described = Resource.create({SERVICE_VERSION: settings.VERSION})
    if str(described.attributes[SERVICE_NAME]).startswith("unknown_service"):  # OTEL_SERVICE_NAME is unset
        described = described.merge(Resource({SERVICE_NAME: "smartflow"}))
    return described
