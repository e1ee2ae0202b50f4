"""django-celery-outbox: writer and relay. Run by bench/peers/measure.py with the peers' own Python; prints JSON.

The relay publishes into Redis through Celery; no worker takes the tasks away.
"""

import argparse
import json
import os
import signal
import threading
import time
import uuid

import django
from django.conf import settings

DATABASE = {
    "ENGINE": "django.db.backends.postgresql",
    "HOST": "127.0.0.1",
    "PORT": os.environ["PEER_PORT"],
    "USER": os.environ["PEER_USER"],
    "NAME": os.environ["PEER_DATABASE"],
    "CONN_MAX_AGE": None,
}
settings.configure(
    INSTALLED_APPS=["django_celery_outbox"],
    DATABASES={"default": DATABASE},
    CELERY_OUTBOX_APP="celery_app.app",
    USE_TZ=True,
    LOGGING_CONFIG=None,
)
django.setup()

import structlog  # noqa: E402
from celery_app import app  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import connection, transaction  # noqa: E402
from django_celery_outbox.models import CeleryOutbox  # noqa: E402
from django_celery_outbox.signals import outbox_message_sent  # noqa: E402

# Its relay writes a line a message otherwise.
structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
TEXT = "x" * (int(os.environ["PEER_BYTES"]) - 80)
THREADS = 4


def append(task_id: str) -> None:
    """Write one task, 1 KB as stored."""
    app.send_task("peer.handle", kwargs={"key": task_id, "message": TEXT}, task_id=task_id)


def backlog(count: int) -> None:
    """Write many, 100 to a transaction."""
    for first in range(0, count, 100):
        with transaction.atomic():
            for _ in range(first, min(count, first + 100)):
                append(str(uuid.uuid4()))


def steady(rate: int, seconds: int) -> dict[str, float]:
    """Write one a transaction at a fixed rate; return each one's moment of commit."""
    commits: dict[str, float] = {}
    start = time.time() + 0.2

    def write(mine: int) -> None:
        for number in range(mine, rate * seconds, THREADS):
            task_id = str(uuid.uuid4())
            time.sleep(max(0.0, start + number / rate - time.time()))
            with transaction.atomic():
                append(task_id)
            commits[task_id] = time.time()
        connection.close()

    threads = [threading.Thread(target=write, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return commits


def relay(options: dict[str, object]) -> dict[str, float]:
    """Run their command until SIGTERM; return the moment each message was sent."""
    sent: dict[str, float] = {}

    def note(task_id: str, **_more: object) -> None:
        sent[task_id] = time.time()

    outbox_message_sent.connect(note)
    print("ready", flush=True)
    call_command("celery_outbox_relay", **options)
    return sent


def main() -> None:
    """Run one part."""
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=("migrate", "backlog", "steady", "relay", "count"))
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--rate", type=int, default=0)
    parser.add_argument("--seconds", type=int, default=0)
    parser.add_argument("--options", type=json.loads, default={})
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if options.part == "migrate":
        call_command("migrate", verbosity=0)
    elif options.part == "backlog":
        backlog(options.count)
    elif options.part == "steady":
        print(json.dumps(steady(options.rate, options.seconds)))
    elif options.part == "relay":
        print(json.dumps(relay(options.options)))
    else:
        print(CeleryOutbox.objects.count())


if __name__ == "__main__":
    main()
