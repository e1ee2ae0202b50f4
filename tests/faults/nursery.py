"""Bears the product's processes quickly: everything is imported once, each process is a fork of it.

A process started from nothing needs more than a second of a core, a fork some milliseconds; that is the difference
between ten runs and a thousand. The fork happens before any connection, thread or client exists, and then runs what
the command line would run. `python -m tests.faults.nursery` reads JSON lines and answers with JSON lines.
"""

import contextlib
import ctypes
import importlib
import json
import os
import select
import signal
import sys
import traceback
from typing import Any

import django

CELERY = (
    "celery --quiet -A smartflow worker --pool threads --concurrency 4 --without-mingle --without-gossip "
    "--without-heartbeat --loglevel INFO"
)


def run_celery(*more: str) -> None:
    """As `celery -A smartflow worker`."""
    from celery.__main__ import main

    sys.argv = [*CELERY.split(), *more]
    main()


def run_writer(script: str, journal: str) -> None:
    """As `python -m tests.faults.writer`."""
    from tests.faults.writer import main

    main(script, journal)


def run_manage(*arguments: str) -> None:
    """As `manage.py` with these arguments."""
    from django.core.management import execute_from_command_line

    execute_from_command_line(["manage.py", *arguments])


def run_consumer() -> None:
    """As `manage.py consume_events`."""
    run_manage("consume_events")


ROLES = {"celery": run_celery, "consumer": run_consumer, "writer": run_writer, "manage": run_manage}


PRELOADED = (
    "celery.apps.worker",
    "celery.beat",
    "celery.bin.celery",
    "celery.concurrency.thread",
    "django_redis.cache",
    "kombu.transport.redis",
    "MySQLdb",
    "outbox.management.commands.outbox",
    "outbox.management.commands.consume_events",
    "outbox.transports.kafka",
    "tests.faults.writer",
)


def preload() -> None:
    """Import what every process needs; open nothing."""
    django.setup()
    for name in PRELOADED:
        importlib.import_module(name)
    from smartflow.celery import app

    app.loader.import_default_modules()


def bear(order: dict[str, Any]) -> int:
    """Fork one process and return its pid."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # dies with the nursery
        os.setsid()
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ["FAULTS_PROCESS"] = order["name"]
        ROLES[order["role"]](*order["arguments"])
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return 0


def main() -> None:
    """Serve orders until the driver is gone."""
    preload()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    answers.write("ready\n")
    orders = os.fdopen(os.dup(0), "rb", buffering=0)
    rest = b""
    while True:
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not select.select([orders], [], [], 0.05)[0]:
            continue
        chunk = orders.read(1 << 16)
        if not chunk:
            return
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            answers.write(f"{bear(json.loads(line))}\n")


if __name__ == "__main__":
    main()
