"""Probes: each part named, bounded in time, without secrets, and never more than one thread a part."""

import threading
import time

from smartflow.observability import probes
from smartflow.observability.health import summarise
from smartflow.observability.probes import PartHealth, configured_checks, probe_parts

OK = PartHealth(is_ok=True, milliseconds=1.0)
DOWN = PartHealth(is_ok=False, milliseconds=1.0, error="away")


def fail():
    raise ConnectionError("redis://user:hunter2@cache:6379 refused\nsecond line " + "x" * 5000)


def test_probe_parts_names_the_part_that_is_down_without_its_password():
    parts = probe_parts({"good": lambda: None, "cache": fail})
    assert parts["good"].is_ok
    assert not parts["cache"].is_ok
    assert parts["cache"].error == "ConnectionError: redis://***@cache:6379 refused"


def test_probe_parts_bounds_a_part_that_hangs_and_keeps_one_thread_for_it(monkeypatch):
    monkeypatch.setattr(probes, "PROBE_SECONDS", 0.05)
    release, started = threading.Event(), []

    def hang():
        started.append(1)
        release.wait(10)

    begun = time.monotonic()
    answers = [probe_parts({"database": hang, "good": lambda: None}) for _ in range(3)]
    took = time.monotonic() - begun
    release.set()
    assert took < 2
    assert [answer["database"].is_ok for answer in answers] == [False] * 3
    assert all(answer["good"].is_ok for answer in answers)
    assert "no answer" in answers[0]["database"].error
    assert len(started) == 1


def test_configured_checks_ask_only_what_is_configured(settings):
    settings.REDIS_URL, settings.KAFKA_BOOTSTRAP_SERVERS = "", []
    assert list(configured_checks()) == ["database", "celery_broker"]
    settings.REDIS_URL, settings.KAFKA_BOOTSTRAP_SERVERS = "redis://127.0.0.1:1/0", ["127.0.0.1:1"]
    assert list(configured_checks()) == ["database", "cache", "kafka", "celery_broker"]


def test_summarise_calls_only_the_database_essential():
    assert summarise({"database": OK, "cache": OK}) == "ok"
    assert summarise({"database": OK, "cache": DOWN, "kafka": DOWN, "celery_broker": DOWN}) == "degraded"
    assert summarise({"database": DOWN, "cache": OK}) == "down"
