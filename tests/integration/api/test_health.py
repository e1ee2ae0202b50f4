"""The health routes: raw, open to everyone, and naming the part that is down."""

import pytest
from django.db import connections

from outbox import transports
from smartflow.observability import probes

NOBODY = "redis://:hunter2@127.0.0.1:1/0"


@pytest.mark.parametrize("path", ["/health", "/api/v1/health", "/health/live"])
def test_health_answers_without_envelope_token_or_database(anonymous, settings, path):
    answer = anonymous.get(path)
    assert (answer.status_code, answer.json()) == (200, {"status": "ok", "version": settings.VERSION})


@pytest.mark.django_db(transaction=True)
def test_ready_is_ok_when_every_part_answers(anonymous):
    answer = anonymous.get("/health/ready")
    assert answer.status_code == 200
    assert answer.json()["status"] == "ok"
    assert answer.json()["parts"]["database"]["ok"] is True
    assert answer.json()["parts"]["database"]["ms"] >= 0


@pytest.mark.django_db(transaction=True)
def test_ready_is_503_and_names_the_database_when_it_is_broken(anonymous, monkeypatch):
    monkeypatch.setitem(connections.settings["default"], "NAME", "/nowhere/at/all/smartflow")
    answer = anonymous.get("/health/ready")
    database = answer.json()["parts"]["database"]
    assert (answer.status_code, answer.json()["status"]) == (503, "down")
    assert database["ok"] is False
    assert "OperationalError" in database["error"]
    assert anonymous.get("/health/live").status_code == 200


@pytest.mark.django_db(transaction=True)
def test_ready_stays_200_and_names_redis_and_kafka_when_they_are_away(anonymous, settings, monkeypatch):
    class Away:
        def check(self, *, timeout_seconds):
            raise transports.TransportUnavailable(f"no broker within {timeout_seconds:g} s")

    monkeypatch.setattr(probes, "get_transport", Away)
    settings.REDIS_URL = settings.CELERY_BROKER_URL = NOBODY
    settings.KAFKA_BOOTSTRAP_SERVERS = ["127.0.0.1:1"]
    answer = anonymous.get("/health/ready")
    parts = answer.json()["parts"]
    assert (answer.status_code, answer.json()["status"]) == (200, "degraded")
    assert {name for name, part in parts.items() if not part["ok"]} == {"cache", "kafka", "celery_broker"}
    assert "no broker within 1 s" in parts["kafka"]["error"]
    assert "hunter2" not in answer.content.decode()
