"""For tests of any app: run relay and consumer until nothing is left to do, so that journeys read synchronously.

`RecordingTransport` stands for a broker. `outbox.testing.contract` holds what every transport promises, as one suite.
"""

from collections import Counter
from datetime import datetime

from outbox import relay
from outbox.consumer import EventConsumer
from outbox.database_clock import database_now
from outbox.dispatch import Outcome
from outbox.testing.recording import RecordingTransport
from outbox.transports import Transport
from outbox.transports.local import LocalTransport
from smartflow.kernel.clock import Clock

__all__ = ["RecordingTransport", "drain", "run_relay"]


def run_relay(*, transport: Transport | None = None, clock: Clock = database_now) -> relay.PassResult:
    """Run one relay pass with test-sized bounds."""
    return relay.run_pass(
        transport=transport or LocalTransport(),
        clock=clock,
        batch_size=50,
        lease_seconds=10,
        publish_seconds=5,
        seconds=30,
    )


def drain(*, transport: Transport | None = None, now: datetime | None = None) -> Counter[Outcome]:
    """Publish and handle everything that is due at `now`; return how many messages came to which outcome."""

    def clock() -> datetime:
        return now or database_now()

    chosen = transport or LocalTransport()
    source = chosen.open_consumer()
    consumer = EventConsumer(source=source, clock=clock, wait=lambda _seconds: False)
    total: Counter[Outcome] = Counter()
    while True:
        published = run_relay(transport=chosen, clock=clock).published
        outcomes = consumer.run_once(timeout_seconds=0)
        total += outcomes
        if not published and not outcomes:
            break
    source.close()
    return total
