"""`manage.py consume_events`: one member of the consumer group, until SIGTERM or SIGINT."""

import signal
import threading
from typing import Any

from django.core.management.base import BaseCommand

from outbox.consumer import EventConsumer, SecondThread
from outbox.database_clock import database_now
from outbox.pulse import Pulse
from outbox.transports import get_transport
from smartflow.observability.metrics import start_exporter


class Command(BaseCommand):
    """Handle events as they arrive."""

    help = "Handle events from the transport. Start as many as there are partitions; stop with Ctrl-C or SIGTERM."

    def handle(self, *args: Any, **options: Any) -> None:
        """Run until asked to stop; the message in hand is finished first."""
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        start_exporter()
        transport = get_transport()
        self.stdout.write("Consuming events. Ctrl-C stops.")
        EventConsumer(
            source=transport.open_consumer(),
            clock=database_now,
            wait=stop.wait,
            hands=SecondThread(),
            pulse=Pulse(clock=database_now),
        ).run()
        transport.close()
