"""Health, logging, metrics and tracing."""

from django.apps import AppConfig


class ObservabilityConfig(AppConfig):
    name = "smartflow.observability"
