"""What settings and code alone give away; run by every command and when a worker starts."""

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register

from outbox.registry import UnknownEventType, handled_types, optional_types, topic_for
from outbox.shards import SHARDS
from outbox.transports import is_transport_made
from outbox.transports.kafka_settings import producer_settings
from smartflow.events import EVENT_TYPES
from smartflow.observability.metrics import PORTS

# Below, the cost of a claim is not shared; above, a batch holds its locks, and its memory, for long.
_SMALLEST_BATCH, _LARGEST_BATCH = 20, 2000


@register("outbox")
def check_lease(**_kwargs: Any) -> list[CheckMessage]:
    """A lease must outlive a publish, or rows are published twice as a matter of course."""
    if settings.OUTBOX_LEASE_SECONDS > settings.OUTBOX_DELIVERY_TIMEOUT_SECONDS + 1:
        return []
    return [
        Error(
            "OUTBOX_LEASE_SECONDS is not longer than OUTBOX_DELIVERY_TIMEOUT_SECONDS + 1.",
            hint="Set OUTBOX_LEASE_SECONDS to at least twice OUTBOX_DELIVERY_TIMEOUT_SECONDS.",
            id="outbox.E001",
        )
    ]


@register("outbox")
def check_topics(**_kwargs: Any) -> list[CheckMessage]:
    """Every event type must have a topic."""
    messages: list[CheckMessage] = []
    for event_type in sorted(EVENT_TYPES):
        try:
            topic_for(event_type)
        except UnknownEventType as error:
            hint = "Add the domain to OUTBOX_TOPICS in smartflow/settings.py."
            messages.append(Error(str(error), hint=hint, id="outbox.E002"))
    return messages


@register("outbox")
def check_handlers(**_kwargs: Any) -> list[CheckMessage]:
    """Every event type but a mere fact should be handled: an event that nobody handles becomes a dead letter."""
    return [
        Warning(
            f"Nothing handles the event {event_type!r}.",
            hint='Add a function with @handles("…") to an app\'s handlers.py.',
            id="outbox.W003",
        )
        for event_type in sorted(EVENT_TYPES - handled_types() - optional_types())
    ]


@register("outbox")
def check_isolation(**_kwargs: Any) -> list[CheckMessage]:
    """On MySQL and MariaDB claims need READ COMMITTED."""
    database = settings.DATABASES["default"]
    if not database["ENGINE"].endswith("mysql"):
        return []
    if database.get("OPTIONS", {}).get("isolation_level") == "read committed":
        return []
    return [
        Error(
            "The database's isolation level is not READ COMMITTED.",
            hint="Set OPTIONS['isolation_level'] = 'read committed': otherwise relays lock each other out.",
            id="outbox.E004",
        )
    ]


@register("outbox")
def check_handled_types(**_kwargs: Any) -> list[CheckMessage]:
    """A handler of a type that the catalog does not have is never called."""
    return [
        Error(
            f"A handler waits for the event {event_type!r}, which is not in the catalog.",
            hint="Add the event to smartflow/events/, or take the handler away.",
            id="outbox.E005",
        )
        for event_type in sorted(handled_types() - EVENT_TYPES)
    ]


@register("outbox")
def check_producer(**_kwargs: Any) -> list[CheckMessage]:
    """What is marked published must be on every in-sync replica, once, and in order."""
    return inspect_producer(producer_settings()) if settings.KAFKA_BOOTSTRAP_SERVERS else []


def inspect_producer(config: Mapping[str, Any]) -> list[CheckMessage]:
    """Return what is wrong with a producer's configuration."""
    wrong = []
    if str(config.get("acks")) not in {"all", "-1"}:
        wrong.append("acks is not `all`: a broker that dies takes acknowledged events with it")
    if config.get("enable.idempotence") is not True:
        wrong.append("enable.idempotence is not set: a repeated request doubles or reorders events")
    if config.get("message.timeout.ms", 300_000) >= settings.OUTBOX_LEASE_SECONDS * 1000:
        wrong.append("message.timeout.ms is not shorter than the lease: two relays would have the same row in hand")
    hint = "Mend producer_settings() in outbox/transports/kafka_settings.py."
    return [Error(f"The Kafka producer's {fact}.", hint=hint, id="outbox.E006") for fact in wrong]


@register("outbox")
def check_prefork(**_kwargs: Any) -> list[CheckMessage]:
    """A producer made before the processes are forked hangs in each child: its threads stay with the parent."""
    if not is_transport_made():
        return []
    return [
        Warning(
            "This process has opened the event transport before its start was over.",
            hint="Call outbox.transports.get_transport() inside a job or request, never while modules are imported.",
            id="outbox.W007",
        )
    ]


@register("outbox")
def check_batch_size(**_kwargs: Any) -> list[CheckMessage]:
    """A batch should be large enough to share the cost of a commit and small enough to be held shortly."""
    if _SMALLEST_BATCH <= settings.OUTBOX_BATCH_SIZE <= _LARGEST_BATCH:
        return []
    return [
        Warning(
            f"OUTBOX_BATCH_SIZE is {settings.OUTBOX_BATCH_SIZE}: rows are claimed too few, or too many, at a time.",
            hint=f"Set it between {_SMALLEST_BATCH} and {_LARGEST_BATCH}; 500 suits most.",
            id="outbox.W008",
        )
    ]


@register("outbox")
def check_relays(**_kwargs: Any) -> list[CheckMessage]:
    """A relay needs a shard of its own."""
    if settings.OUTBOX_RELAYS <= SHARDS:
        return []
    return [
        Error(
            f"OUTBOX_RELAYS is {settings.OUTBOX_RELAYS}, and there are {SHARDS} shards: some relays would do nothing.",
            hint=f"Set OUTBOX_RELAYS to at most {SHARDS}; four are more than one machine can use.",
            id="outbox.E009",
        )
    ]


@register("outbox")
def check_sqlite(**_kwargs: Any) -> list[CheckMessage]:
    """SQLite has one writer at a time, so that several relays only wait for each other."""
    if settings.OUTBOX_RELAYS == 1 or not settings.DATABASES["default"]["ENGINE"].endswith("sqlite3"):
        return []
    return [
        Warning(
            f"OUTBOX_RELAYS is {settings.OUTBOX_RELAYS}, and SQLite lets one of them write at a time.",
            hint="Set OUTBOX_RELAYS=1, or move to MariaDB or MySQL with DATABASE_URL.",
            id="outbox.W010",
        )
    ]


@register("outbox")
def check_shared_transport(**_kwargs: Any) -> list[CheckMessage]:
    """Two relays on the local transport publish into one table, whose order is that of their commits."""
    if settings.OUTBOX_RELAYS == 1 or not settings.OUTBOX_TRANSPORT.endswith("LocalTransport"):
        return []
    return [
        Warning(
            f"OUTBOX_RELAYS is {settings.OUTBOX_RELAYS}, and without Kafka every event goes through one table.",
            hint="Set OUTBOX_RELAYS=1, or name brokers in KAFKA_BOOTSTRAP_SERVERS.",
            id="outbox.W011",
        )
    ]


@register("outbox")
def check_relay_pass(**_kwargs: Any) -> list[CheckMessage]:
    """A pass must be worth its start, and end before a worker that is asked to stop is killed."""
    if settings.OUTBOX_DELIVERY_TIMEOUT_SECONDS < settings.OUTBOX_RELAY_PASS_SECONDS <= 60:
        return []
    return [
        Warning(
            f"OUTBOX_RELAY_PASS_SECONDS is {settings.OUTBOX_RELAY_PASS_SECONDS:g}: a pass has no time for a slow"
            " publish, or holds its worker for over a minute.",
            hint="Set it above OUTBOX_DELIVERY_TIMEOUT_SECONDS and to at most 60; 10 suits most.",
            id="outbox.W012",
        )
    ]


@register("outbox")
def check_rescan(**_kwargs: Any) -> list[CheckMessage]:
    """A row whose place in the broker is unknown goes round again by age: not while it may still be under way."""
    if settings.OUTBOX_RESCAN_SECONDS > settings.OUTBOX_LEASE_SECONDS:
        return []
    return [
        Warning(
            "OUTBOX_RESCAN_SECONDS is not longer than OUTBOX_LEASE_SECONDS: events are published again while they"
            " are handled.",
            hint="Set OUTBOX_RESCAN_SECONDS to at least three times OUTBOX_LEASE_SECONDS.",
            id="outbox.W013",
        )
    ]


@register("outbox")
def check_metrics(**_kwargs: Any) -> list[CheckMessage]:
    """The metrics' port must be nobody else's, and may leave this machine only behind a token."""
    messages: list[CheckMessage] = []
    first = settings.METRICS_PORT
    if first and settings.PORT in range(first, first + PORTS):
        hint = f"Set SMARTFLOW_METRICS_PORT to a number whose next {PORTS} are free, for example 9200."
        messages.append(
            Error("SMARTFLOW_METRICS_PORT would take PORT, which is the web's.", hint=hint, id="outbox.E014")
        )
    if first and not settings.METRICS_TOKEN and not _is_this_machine(settings.METRICS_HOST):
        fact = f"SMARTFLOW_METRICS_HOST is {settings.METRICS_HOST}: everybody in the network can read the metrics."
        hint = "Set SMARTFLOW_METRICS_TOKEN, and give it to Prometheus as the target's credentials."
        messages.append(Warning(fact, hint=hint, id="outbox.W015"))
    return messages


def _is_this_machine(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
