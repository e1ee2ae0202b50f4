"""The HTTP edge: what every app's routes share."""

from django.apps import AppConfig


class EdgeConfig(AppConfig):
    name = "smartflow.api"
    label = "edge"
