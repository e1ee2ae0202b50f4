"""What the broker really has. Runs with `check --deploy` only, and asks for at most a second or two.

A broker that is away, or has not seen an event yet, is nobody's mistake: then nothing is said.
"""

from collections.abc import Mapping
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Warning, register
from django.utils.module_loading import import_string

from outbox.transports import TopicShape, TransportUnavailable

_SECONDS = 1.0


@register("outbox", deploy=True)
def check_topics_of_broker(**_kwargs: Any) -> list[CheckMessage]:
    """Topics that were made by somebody else may differ from what the settings say."""
    if not settings.KAFKA_BOOTSTRAP_SERVERS:
        return []
    # by name: the client is loaded only where there is a broker
    describe = import_string("outbox.transports.kafka.describe_topics")
    try:
        return inspect_topics(describe(timeout_seconds=_SECONDS))
    except TransportUnavailable:
        return []


def inspect_topics(shapes: Mapping[str, TopicShape]) -> list[CheckMessage]:
    """Return what is wrong with the topics there are."""
    messages: list[CheckMessage] = []
    for topic, shape in sorted(shapes.items()):
        messages += [*_partitions(topic, shape), *_copies(topic, shape), *_retention(topic, shape)]
    return messages


def _partitions(topic: str, shape: TopicShape) -> list[CheckMessage]:
    if shape.partitions == settings.OUTBOX_TOPIC_PARTITIONS:
        return []
    fact = f"The topic {topic} has {shape.partitions} partitions, OUTBOX_TOPIC_PARTITIONS says"
    return [
        Warning(
            f"{fact} {settings.OUTBOX_TOPIC_PARTITIONS}.",
            hint=f"Set OUTBOX_TOPIC_PARTITIONS={shape.partitions}, or kafka-topics.sh --alter --topic {topic}"
            f" --partitions {settings.OUTBOX_TOPIC_PARTITIONS} (more only; the order per key is kept by the table).",
            id="outbox.W040",
        )
    ]


def _copies(topic: str, shape: TopicShape) -> list[CheckMessage]:
    if shape.copies >= settings.OUTBOX_TOPIC_REPLICATION:
        return []
    fact = f"The topic {topic} is kept {shape.copies} times, OUTBOX_TOPIC_REPLICATION says"
    return [
        Warning(
            f"{fact} {settings.OUTBOX_TOPIC_REPLICATION}.",
            hint="Add replicas with kafka-reassign-partitions.sh, or lower OUTBOX_TOPIC_REPLICATION.",
            id="outbox.W041",
        )
    ]


def _retention(topic: str, shape: TopicShape) -> list[CheckMessage]:
    """A message must not outlive its row, by which a second delivery of it is recognised."""
    kept = shape.retention_seconds
    if kept is not None and kept <= settings.OUTBOX_RETENTION_SECONDS:
        return []
    how_long = "for ever" if kept is None else f"for {kept:.0f} s"
    return [
        Warning(
            f"The topic {topic} keeps messages {how_long}, OUTBOX_RETENTION_SECONDS keeps their rows for"
            f" {settings.OUTBOX_RETENTION_SECONDS} s: a consumer that starts over finds messages without rows.",
            hint=f"Set the topic's retention.ms to at most {settings.OUTBOX_RETENTION_SECONDS * 1000},"
            " or raise OUTBOX_RETENTION_SECONDS.",
            id="outbox.W042",
        )
    ]
