"""The Celery application: finds every app's jobs.py and reads the timetable."""

import os

from celery import Celery
from kombu.transport import TRANSPORT_ALIASES

from smartflow.timetable import TIMETABLE

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "smartflow.settings")

TRANSPORT_ALIASES["filesystem"] = "smartflow.folder_broker:FolderTransport"

app = Celery("smartflow")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks(related_name="jobs")
app.conf.beat_schedule = TIMETABLE
