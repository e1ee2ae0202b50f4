"""The Celery application: finds every app's jobs.py and reads the timetable."""

import logging
import os
import signal
import threading
from datetime import UTC, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from celery import Celery
from celery.bootsteps import RUN  # type: ignore[attr-defined]
from celery.schedules import schedule
from celery.signals import worker_process_init, worker_ready
from django.conf import settings
from kombu.transport import TRANSPORT_ALIASES
from kombu.transport.redis import QoS as RedisQoS

from smartflow.kernel.clock import steady_now
from smartflow.observability.metrics import start_exporter
from smartflow.timetable import TIMETABLE

logger = logging.getLogger(__name__)

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "smartflow.settings")

TRANSPORT_ALIASES["filesystem"] = "smartflow.folder_broker:FolderTransport"
# When the connection to Redis is lost while a job is unacknowledged, kombu 5.7 puts the job back through a connection
# that it has closed already; the error ends the worker's consumer, while the process lives on and runs no job any more.
# Every job is a tick, and the next tick does the same work.
RedisQoS.restore_at_shutdown = False


class Daily(schedule):
    """Due once a day at this time of the installation's zone, by the clock that no step moves."""

    def __init__(self, at: time) -> None:
        # beat reads run_every as a bound; the longest day has 25 hours
        super().__init__(timedelta(hours=25), nowfun=steady_now)
        self.at = at

    def __reduce__(self) -> tuple[type["Daily"], tuple[time]]:
        return type(self), (self.at,)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Daily) and other.at == self.at

    __hash__ = None  # type: ignore[assignment]  # as its base

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        """Return the time left to the first such moment after the last run."""
        zone = ZoneInfo(settings.TIME_ZONE)
        last = last_run_at.astimezone(zone)
        due = datetime.combine(last.date(), self.at, zone)
        if due <= last:
            due = datetime.combine(last.date() + timedelta(days=1), self.at, zone)
        return due.astimezone(UTC) - self.now()


app = Celery("smartflow")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks(related_name="jobs")
# By its own clock, the wall's, beat would start nothing for five minutes when that is set back by five minutes.
app.conf.beat_schedule = {
    name: entry | {"schedule": Daily(due) if isinstance(due, time) else schedule(due, nowfun=steady_now)}
    for name, entry in TIMETABLE.items()
    for due in (entry["schedule"],)
}


@worker_ready.connect
@worker_process_init.connect
def _serve_metrics(**_kwargs: Any) -> None:
    """Open a port for this worker's metrics; each process of a pool that forks has its own."""
    start_exporter()


@worker_ready.connect
def _watch_beat(sender: Any, **_kwargs: Any) -> None:
    """End this worker when its beat has ended: nobody else would notice, and whoever starts workers starts both."""
    worker = sender.controller
    if worker.beat is not None:
        threading.Thread(target=_end_with_beat, args=(worker,), name="beat-watch", daemon=True).start()


def _end_with_beat(worker: Any) -> None:
    worker.beat.join()
    if worker.blueprint.state == RUN:
        logger.error("Beat has ended; this worker ends too, to be started again with a new one")
        os.kill(os.getpid(), signal.SIGTERM)
