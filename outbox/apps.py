"""The outbox: gets events out of the database and into handlers. It knows no feature."""

from django.apps import AppConfig
from django.utils.module_loading import autodiscover_modules


class OutboxConfig(AppConfig):
    name = "outbox"

    def ready(self) -> None:
        """Import every app's handlers, so that each process knows who reacts to what; its checks and metrics too."""
        autodiscover_modules("handlers", "checks", "collector")
