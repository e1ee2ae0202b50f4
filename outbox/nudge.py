"""Wakes a relay right after a commit. Only a hint: beat starts a pass every second anyway, so losing one loses nothing.

The broker is spoken to by one background thread per process, so that a request never waits for it; nudges that come
while one is being sent are merged into one.
"""

import logging
import os
import threading

from celery import current_app
from django.db import transaction

logger = logging.getLogger(__name__)

RELAY_JOB = "outbox.jobs.run_relay_pass"
EXPIRES_SECONDS = 2


class Nudger:
    """A daemon thread that sends at most one nudge at a time, in the process that made it."""

    def __init__(self) -> None:
        self._wanted = threading.Event()
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._run, name="outbox-nudge", daemon=True)
        self._thread.start()

    @property
    def is_mine(self) -> bool:
        """Tell whether this process started the thread; a forked child has to start its own."""
        return self._pid == os.getpid()

    def wake(self) -> None:
        """Ask for one nudge; returns at once."""
        self._wanted.set()

    def _run(self) -> None:
        was_down = False
        while True:
            self._wanted.wait()
            self._wanted.clear()
            try:
                current_app.send_task(RELAY_JOB, expires=EXPIRES_SECONDS, retry=False, ignore_result=True)
            except Exception as error:
                if not was_down:
                    logger.info("The relay cannot be nudged; beat takes over", extra={"error": type(error).__name__})
                was_down = True
            else:
                was_down = False


_nudger: Nudger | None = None
_lock = threading.Lock()


def nudge_after_commit() -> None:
    """Wake a relay once the surrounding transaction has committed; nothing happens when it rolls back."""
    transaction.on_commit(_wake, robust=True)


def _wake() -> None:
    global _nudger
    with _lock:
        if _nudger is None or not _nudger.is_mine:
            _nudger = Nudger()
    _nudger.wake()
