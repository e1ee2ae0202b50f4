"""Kafka keeps the promises of every transport; tests/integration/outbox/test_local_transport.py runs the same suite."""

import pytest

from tests.transport_contract import TransportContract

pytestmark = pytest.mark.services


class TestKafkaTransport(TransportContract):
    """The fixture `transport` of this folder is Kafka."""
