"""Celery entry points of the outbox. Beat starts them (smartflow/timetable.py); a relay sends itself again."""

import logging
import threading
from datetime import timedelta
from typing import Any

from celery import shared_task
from celery.signals import worker_shutting_down
from django.conf import settings
from django.db import DatabaseError, InterfaceError, connection

from outbox import operator_actions, relay_loop, upkeep
from outbox.database_clock import database_now
from outbox.database_errors import is_away
from outbox.relay import Bounds, Memory, Relay
from outbox.rescan import Rescan
from outbox.transports import Transport, TransportUnavailable, get_transport

logger = logging.getLogger(__name__)

AGAIN_EXPIRES_SECONDS = 5
# Larger: a long queue of published rows is looked through in fewer ticks; a page is Rescan's.
RESCAN_PAGES = 4
# Larger: fewer starts; smaller: a worker that is asked to end does so earlier.
PRUNE_SECONDS = 20.0
OPERATOR_SECONDS = 10.0


class _Notice:
    """Says that a part went away, and that it came back: one line per change of state, however many passes fail."""

    def __init__(self, *, away: str, back: str) -> None:
        self._away, self._back = away, back
        self._is_away = False

    def tell(self, *, is_away: bool) -> None:
        if is_away != self._is_away:
            self._is_away = is_away
            logger.log(logging.WARNING if is_away else logging.INFO, self._away if is_away else self._back)


_database = _Notice(
    away="Publishing pauses: the database does not answer", back="Publishing goes on: the database answers again"
)
_memory = Memory()
_history = relay_loop.History()
_stopping = threading.Event()
# Where each transport's rescan has come to; a transport lives as long as its process.
_rescans: dict[Transport, Rescan] = {}


@worker_shutting_down.connect
def _stop_relays(**_kwargs: Any) -> None:
    """End the passes of this worker's threads at once; a forked child ends its pass when that is over."""
    _stopping.set()


@shared_task(name="outbox.jobs.run_relay_pass", acks_late=False)
def run_relay_pass() -> None:
    """
    Relay on a free slot for a while, then send itself again, so that there is no gap.

    Overlapping passes are safe; a lost one is made up by the next tick, which does nothing where every slot is taken.
    """
    try:
        has_worked = relay_loop.run_free_slot(relay=_make_relay(), history=_history, terms=_terms())
    except (DatabaseError, InterfaceError) as error:
        if not is_away(error):
            raise
        connection.close()
        _database.tell(is_away=True)
        return  # the next tick tries again
    if has_worked:
        _database.tell(is_away=False)
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
