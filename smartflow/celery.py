"""The Celery application: finds every app's jobs.py and reads the timetable."""

import logging
import os
import signal
import threading
from typing import Any

from celery import Celery
from celery.bootsteps import RUN  # type: ignore[attr-defined]
from celery.schedules import schedule
from celery.signals import worker_process_init, worker_ready
from kombu.transport import TRANSPORT_ALIASES

from smartflow.kernel.clock import steady_now
from smartflow.observability.metrics import start_exporter
from smartflow.timetable import TIMETABLE

logger = logging.getLogger(__name__)

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "smartflow.settings")

TRANSPORT_ALIASES["filesystem"] = "smartflow.folder_broker:FolderTransport"

app = Celery("smartflow")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks(related_name="jobs")
# By its own clock, the wall's, beat would start nothing for five minutes when that is set back by five minutes.
app.conf.beat_schedule = {
    name: entry | {"schedule": schedule(entry["schedule"], nowfun=steady_now)} for name, entry in TIMETABLE.items()
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
