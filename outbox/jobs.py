"""Celery entry points of the outbox. Beat starts them (smartflow/timetable.py); a commit nudges the relay early."""

import logging
from datetime import timedelta

from celery import shared_task
from django.conf import settings
from django.db import DatabaseError, InterfaceError, connection

from outbox import operator_actions, relay, upkeep
from outbox.database_clock import database_now
from outbox.database_errors import is_away
from outbox.transports import get_transport

logger = logging.getLogger(__name__)

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


_broker = _Notice(
    away="Publishing pauses: the broker does not answer; events wait in the table",
    back="Publishing goes on: the broker answers again",
)
_database = _Notice(
    away="Publishing pauses: the database does not answer", back="Publishing goes on: the database answers again"
)


@shared_task(name="outbox.jobs.run_relay_pass", acks_late=False)
def run_relay_pass() -> None:
    """Publish due rows for a moment. Overlapping passes are safe; a lost one is made up by the next tick."""
    try:
        result = relay.run_pass(
            transport=get_transport(),
            clock=database_now,
            batch_size=settings.OUTBOX_BATCH_SIZE,
            lease_seconds=settings.OUTBOX_LEASE_SECONDS,
            publish_seconds=settings.OUTBOX_DELIVERY_TIMEOUT_SECONDS + 1,
            seconds=settings.OUTBOX_RELAY_PASS_SECONDS,
        )
    except (DatabaseError, InterfaceError) as error:
        if not is_away(error):
            raise
        connection.close()
        _database.tell(is_away=True)
    else:
        _database.tell(is_away=False)
        _broker.tell(is_away=result.is_transport_down)


@shared_task(name="outbox.jobs.rescan_published", acks_late=False)
def rescan_published() -> None:
    """Send rows round again that were published long ago and never consumed."""
    try:
        now = database_now()
        older_than = now - timedelta(seconds=settings.OUTBOX_RESCAN_SECONDS)
        moved = upkeep.rescan_published(older_than=older_than, now=now)
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
    deleted = upkeep.prune(older_than=older_than, seconds=PRUNE_SECONDS)
    upkeep.prune_records(now=now)
    if deleted:
        logger.info("Consumed rows were pruned", extra={"deleted": deleted})


@shared_task(name="outbox.jobs.run_operator_actions", acks_late=False)
def run_operator_actions() -> None:
    """Move the rows that operators asked to move; what is left when the time is over is for the next tick."""
    try:
        operator_actions.run_actions(clock=database_now, seconds=OPERATOR_SECONDS)
    except (DatabaseError, InterfaceError) as error:
        if not is_away(error):
            raise
        connection.close()  # the relay's pass tells; the next tick goes on behind the last batch
