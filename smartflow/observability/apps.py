"""Health, logging, metrics and tracing."""

from django.apps import AppConfig
from django.conf import settings
from django.utils.module_loading import import_string


class ObservabilityConfig(AppConfig):
    name = "smartflow.observability"

    def ready(self) -> None:
        """Begin to send spans, when there is a collector to take them."""
        if settings.TRACES_ENDPOINT:
            import_string("smartflow.observability.span_export.start")()
