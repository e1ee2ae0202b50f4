"""Kafka keeps the promises of every transport; tests/integration/outbox/test_local_transport.py runs the same suite."""

import pytest

from outbox.testing.contract import TransportContract

pytestmark = pytest.mark.services


class TestKafkaTransport(TransportContract):
    """The fixture `transport` of this folder is Kafka."""
