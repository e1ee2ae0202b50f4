"""Wiring mistakes of the outbox, found at start: the fact as message, the remedy as hint."""

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register

from outbox.registry import UnknownEventType, handled_types, topic_for
from smartflow.events import EVENT_TYPES


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
    """Every event type should be handled: an event that nobody handles becomes a dead letter."""
    return [
        Warning(
            f"Nothing handles the event {event_type!r}.",
            hint='Add a function with @handles("…") to an app\'s handlers.py.',
            id="outbox.W003",
        )
        for event_type in sorted(EVENT_TYPES - handled_types())
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
