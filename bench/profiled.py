"""One process that drains a backlog under cProfile: the relay or the consumer. `python -m bench profile`."""

import argparse
import cProfile
import io
import pstats

import django

django.setup()

from outbox.consumer import EventConsumer  # noqa: E402
from outbox.database_clock import database_now  # noqa: E402
from outbox.relay import run_pass  # noqa: E402
from outbox.transports import get_transport  # noqa: E402

SHOWN = 25
OWN_FILES = r"/(outbox|chat|smartflow/accounts)/\w"


def drain_relay(profiler: cProfile.Profile) -> None:
    """Publish everything."""
    transport = get_transport()
    transport.check(timeout_seconds=5)
    profiler.enable()
    run_pass(transport=transport, clock=database_now, batch_size=500, lease_seconds=10, publish_seconds=6, seconds=60)
    profiler.disable()


def drain_consumer(profiler: cProfile.Profile, events: int) -> None:
    """Handle so many messages; joining the group is not part of it."""
    source = get_transport().open_consumer()
    consumer = EventConsumer(source=source, clock=database_now, wait=lambda _seconds: False)
    handled = 0
    while handled < events:
        handled += consumer.run_once(timeout_seconds=1).total()
        profiler.enable()
    profiler.disable()
    source.close()


def main() -> None:
    """Drain one side and print where the time went."""
    parser = argparse.ArgumentParser(prog="python -m bench.profiled", description=__doc__)
    parser.add_argument("part", choices=("relay", "consumer"))
    parser.add_argument("--events", type=int, default=0)
    options = parser.parse_args()
    profiler = cProfile.Profile()
    if options.part == "relay":
        drain_relay(profiler)
    else:
        drain_consumer(profiler, options.events)
    for order, chosen in (("tottime", ()), ("cumtime", (OWN_FILES,))):
        text = io.StringIO()
        pstats.Stats(profiler, stream=text).sort_stats(order).print_stats(*chosen, SHOWN)
        print(text.getvalue())


if __name__ == "__main__":
    main()
