"""Asks each configured part for an answer, all at once, each for at most a second.

A part that hangs keeps one thread, never more: requests that come meanwhile wait for the same probe.
"""

import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import redis
from django.conf import settings
from django.db import connection

from outbox.transports import get_transport
from smartflow.kernel.redact import describe_error

# Larger: a slow part is called up for longer, and the answer comes later. An orchestrator waits a few seconds at most.
PROBE_SECONDS = 1.0
ERROR_BYTES = 200

Check = Callable[[], None]


@dataclass(frozen=True, kw_only=True)
class PartHealth:
    """What one part answered."""

    is_ok: bool
    milliseconds: float
    error: str = ""


class _Probe:
    """One check in a thread of its own, because no driver bounds every way of hanging."""

    def __init__(self, check: Check) -> None:
        self._check = check
        self._started = time.monotonic()
        self._outcome: PartHealth | None = None
        self._thread = threading.Thread(target=self._run, daemon=True, name="health-probe")
        self._thread.start()

    def _run(self) -> None:
        error = ""
        try:
            self._check()
        except Exception as failure:
            error = describe_error(failure, max_bytes=ERROR_BYTES).splitlines()[0]
        self._outcome = PartHealth(is_ok=not error, milliseconds=self._age(), error=error)

    def _age(self) -> float:
        return round((time.monotonic() - self._started) * 1000, 1)

    @property
    def is_running(self) -> bool:
        return self._thread.is_alive()

    def outcome(self, *, deadline: float) -> PartHealth:
        self._thread.join(max(0.0, deadline - time.monotonic()))
        return self._outcome or PartHealth(
            is_ok=False, milliseconds=self._age(), error=f"no answer within {PROBE_SECONDS:g} s"
        )


_running: dict[str, _Probe] = {}
_lock = threading.Lock()


def probe_parts(checks: Mapping[str, Check]) -> dict[str, PartHealth]:
    """Run the checks at the same time and return what each part answered."""
    deadline = time.monotonic() + PROBE_SECONDS
    probes = {name: _start_or_join(name, check) for name, check in checks.items()}
    return {name: probe.outcome(deadline=deadline) for name, probe in probes.items()}


def configured_checks() -> dict[str, Check]:
    """Return the check of every part this installation has."""
    checks: dict[str, Check] = {"database": check_database}
    if settings.REDIS_URL:
        checks["cache"] = check_cache
    if settings.KAFKA_BOOTSTRAP_SERVERS:
        checks["kafka"] = check_kafka
    checks["celery_broker"] = check_celery_broker
    return checks


def check_database() -> None:
    """Read one row of the migrations, so that an empty database is not called ready. Closes its connection."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM django_migrations LIMIT 1")
            if cursor.fetchone() is None:
                raise LookupError("no migration has been applied")
    finally:
        connection.close()


def check_cache() -> None:
    """Ping Redis itself: the cache in front of it hides its failures on purpose."""
    _ping_redis(settings.REDIS_URL)


def check_kafka() -> None:
    """Ask the broker through the one module that may speak to it."""
    get_transport().check(timeout_seconds=PROBE_SECONDS)


def check_celery_broker() -> None:
    """Ping the broker's Redis, or see that the broker's folder can be written."""
    if not settings.CELERY_BROKER_URL.startswith("filesystem"):
        _ping_redis(settings.CELERY_BROKER_URL)
        return
    folder = Path(settings.CELERY_BROKER_TRANSPORT_OPTIONS["data_folder_out"])
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"the broker's folder {folder.name} can't be written")


def _ping_redis(url: str) -> None:
    with redis.Redis.from_url(url, socket_connect_timeout=PROBE_SECONDS, socket_timeout=PROBE_SECONDS) as client:
        client.ping()


def _start_or_join(name: str, check: Check) -> _Probe:
    with _lock:
        probe = _running.get(name)
        if probe is None or not probe.is_running:
            probe = _running[name] = _Probe(check)
        return probe
