"""outbox/checks.py: wiring mistakes are named at start, with their remedy."""

from types import SimpleNamespace

import pytest
from django.core.checks import run_checks

from outbox import checks, registry
from outbox.transports import TransportUnavailable
from outbox.transports.kafka import KafkaTransport
from tests.outbox_rows import EVENT_TYPE


def found() -> dict[str, str]:
    return {message.id: str(message.hint) for message in run_checks(tags=["outbox"])}


def test_checks_find_nothing_as_shipped():
    assert found() == {}


@pytest.mark.parametrize(("lease", "is_wrong"), [(5, True), (6, True), (7, False)])
def test_check_lease_when_a_publish_may_outlast_it(settings, lease, is_wrong):
    settings.OUTBOX_DELIVERY_TIMEOUT_SECONDS, settings.OUTBOX_LEASE_SECONDS = 5, lease

    assert ("outbox.E001" in found()) is is_wrong


def test_check_topics_when_a_domain_has_none(settings):
    settings.OUTBOX_TOPICS = {}

    assert "OUTBOX_TOPICS" in found()["outbox.E002"]


def test_check_handlers_when_nobody_handles_an_event(monkeypatch):
    monkeypatch.delitem(registry._handlers, EVENT_TYPE)

    assert "@handles" in found()["outbox.W003"]


@pytest.mark.parametrize(("level", "is_wrong"), [("read committed", False), ("repeatable read", True), (None, True)])
def test_check_isolation_when_relays_would_block_each_other(monkeypatch, level, is_wrong):
    database = {"ENGINE": "django.db.backends.mysql", "OPTIONS": {"isolation_level": level} if level else {}}
    monkeypatch.setattr(checks, "settings", SimpleNamespace(DATABASES={"default": database}))

    assert [message.id for message in checks.check_isolation()] == ["outbox.E004"] * is_wrong


def test_a_transport_can_be_made_without_a_broker(settings):
    settings.KAFKA_BOOTSTRAP_SERVERS = ["127.0.0.1:1"]

    with pytest.raises(TransportUnavailable):
        KafkaTransport().check(timeout_seconds=0.1)
