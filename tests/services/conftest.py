"""Fixtures of the tests that need real services: Kafka with topics and a group of the test's own."""

from uuid import uuid4

import pytest

from outbox.transports.kafka import KafkaTransport
from tests.outbox_fixtures import clock, handler, nudges

__all__ = ["clock", "handler", "kafka", "nudges", "transport"]


@pytest.fixture
def kafka(settings):
    """Give the test a topic and a group that no other run knows; the topic does not exist yet."""
    if not settings.KAFKA_BOOTSTRAP_SERVERS:
        pytest.skip("KAFKA_BOOTSTRAP_SERVERS is not set")
    name = f"test-{uuid4().hex[:12]}"
    settings.OUTBOX_TOPICS = {"chat": name, "agent": name}
    settings.OUTBOX_CONSUMER_GROUP = f"{name}-group"
    settings.OUTBOX_TOPIC_PARTITIONS = 3
    return name


@pytest.fixture
def transport(kafka):
    made = KafkaTransport()
    yield made
    made.close()
