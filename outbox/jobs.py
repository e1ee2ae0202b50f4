"""Celery entry points of the outbox. Beat starts them (smartflow/timetable.py); a relay sends itself again."""

import logging
import threading
from datetime import timedelta
from time import monotonic
from typing import Any

from celery import shared_task
from celery.signals import worker_ready, worker_shutting_down
from django.conf import settings
from django.db import DatabaseError, InterfaceError, connection

from outbox import operator_actions, relay_loop, upkeep
from outbox.database_clock import database_now
from outbox.database_errors import is_away
from outbox.notice import Notice
from outbox.relay import Bounds, Memory, Relay
from outbox.rescan import Rescan
from outbox.transports import Transport, TransportUnavailable, get_transport

logger = logging.getLogger(__name__)

# The receiver's clock decides: larger bears more skew between machines, and more passes pile up for one that was away.
AGAIN_EXPIRES_SECONDS = 60
# Between two questions whether the database is back; doubles until a pass has worked.
SHORTEST_WAIT_SECONDS = 0.1
LONGEST_WAIT_SECONDS = 2.0
# Larger: many rows that were lost at once go round sooner, and a tick takes longer; a page is Rescan's.
RESCAN_PAGES = 10
# Larger: fewer starts; smaller: a worker that is asked to end does so earlier.
PRUNE_SECONDS = 20.0
OPERATOR_SECONDS = 10.0


_database = Notice(
    logger=logger,
    level=logging.WARNING,
    away="Publishing pauses: the database does not answer",
    back="Publishing goes on: the database answers again",
)


class _Patience:
    """Waits for the database in the place of passes that it cut off, at most one for each slot."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting = 0
        self._seconds = SHORTEST_WAIT_SECONDS

    def reset(self) -> None:
        """Take note that a pass has worked."""
        self._seconds = SHORTEST_WAIT_SECONDS

    def wait(self, *, stop: threading.Event, slots: int, seconds: float) -> bool:
        """Wait until the database answers, at most so long; false when enough are waiting already."""
        with self._lock:
            if self._waiting >= slots:
                return False
            self._waiting += 1
        until = monotonic() + seconds
        try:
            while not stop.wait(self._seconds) and monotonic() < until:
                self._seconds = min(self._seconds * 2, LONGEST_WAIT_SECONDS)
                if _is_there():
                    break
        finally:
            with self._lock:
                self._waiting -= 1
        return True


def _is_there() -> bool:
    try:
        database_now()
    except (DatabaseError, InterfaceError):
        connection.close()
        return False
    return True


_patience = _Patience()
_memory = Memory()
_history = relay_loop.History()
_stopping = threading.Event()
# Where each transport's rescan has come to; a transport lives as long as its process.
_rescans: dict[Transport, Rescan] = {}


@worker_shutting_down.connect
def _stop_relays(**_kwargs: Any) -> None:
    """End the passes of this worker's threads at once; a forked child ends its pass when that is over."""
    _stopping.set()


@worker_ready.connect
def _start_relays(**_kwargs: Any) -> None:
    """Send the first passes, so that publishing does not wait for beat, which may be ill."""
    for _ in range(settings.OUTBOX_RELAYS):
        _send_again()


@shared_task(name="outbox.jobs.run_relay_pass", acks_late=False)
def run_relay_pass() -> None:
    """
    Relay on a free slot for a while, then send itself again, so that there is no gap; so does one that the database
    cut off, as soon as that answers.

    Overlapping passes are safe; a lost one is made up by the next tick, which does nothing where every slot is taken.
    """
    try:
        is_to_go_on = relay_loop.run_free_slot(relay=_make_relay(), history=_history, terms=_terms())
    except (DatabaseError, InterfaceError) as error:
        if not is_away(error):
            raise
        connection.close()
        _database.tell(is_away=True)
        is_to_go_on = _patience.wait(
            stop=_stopping, slots=settings.OUTBOX_RELAYS, seconds=settings.OUTBOX_RELAY_PASS_SECONDS
        )
    else:
        if is_to_go_on:
            _database.tell(is_away=False)
            _patience.reset()
    if is_to_go_on:
        _send_again()


def _make_relay() -> Relay:
    bounds = Bounds(
        batch_size=settings.OUTBOX_BATCH_SIZE,
        lease_seconds=settings.OUTBOX_LEASE_SECONDS,
        publish_seconds=settings.OUTBOX_DELIVERY_TIMEOUT_SECONDS + 1,
    )
    return Relay(transport=get_transport(), clock=database_now, bounds=bounds, memory=_memory)


def _terms() -> relay_loop.Terms:
    return relay_loop.Terms(
        slots=settings.OUTBOX_RELAYS,
        seconds=settings.OUTBOX_RELAY_PASS_SECONDS,
        redis_url=settings.REDIS_URL,
        stop=_stopping,
    )


def _send_again() -> None:
    if _stopping.is_set():
        return
    try:
        run_relay_pass.apply_async(expires=AGAIN_EXPIRES_SECONDS, retry=False, ignore_result=True)
    except Exception as error:  # whatever Celery's broker says: beat's next tick starts a pass
        logger.debug("The next pass could not be sent", extra={"error": type(error).__name__})


@shared_task(name="outbox.jobs.rescan_published", acks_late=False)
def rescan_published() -> None:
    """Send published rows round again that no consumer will ever be given."""
    transport = get_transport()
    rescan = _rescans.setdefault(transport, Rescan(transport=transport, unknown_seconds=settings.OUTBOX_RESCAN_SECONDS))
    try:
        moved = rescan.run(now=database_now(), pages=RESCAN_PAGES)
    except TransportUnavailable:
        return  # the relay's breaker tells; the next tick asks again
    except (DatabaseError, InterfaceError) as error:
        if not is_away(error):
            raise
        connection.close()
        return  # the relay's pass tells; the next tick tries again
    if moved:
        logger.info("Published rows go round again", extra={"moved": moved})


@shared_task(name="outbox.jobs.prune_consumed", acks_late=False)
def prune_consumed() -> None:
    """Delete consumed rows past retention for a while, and records that nobody looks at any more."""
    now = database_now()
    older_than = now - timedelta(seconds=settings.OUTBOX_RETENTION_SECONDS)
    deleted = upkeep.prune(older_than=older_than, seconds=PRUNE_SECONDS, wait=_stopping.wait)
    upkeep.prune_records(now=now)
    if deleted:
        logger.info("Consumed rows were pruned", extra={"deleted": deleted})


@shared_task(name="outbox.jobs.run_operator_actions", acks_late=False)
def run_operator_actions() -> None:
    """Move the rows that operators asked to move; what is left when the time is over is for the next tick."""
    try:
        operator_actions.run_actions(clock=database_now, seconds=OPERATOR_SECONDS, is_stopping=_stopping.is_set)
    except (DatabaseError, InterfaceError) as error:
        if not is_away(error):
            raise
        connection.close()  # the relay's pass tells; the next tick goes on behind the last batch
