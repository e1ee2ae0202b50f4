"""Celery entry points of conversations."""

import logging

from celery import shared_task
from django.db import DatabaseError, InterfaceError, connection

from chat import operations
from outbox.database_errors import is_away
from smartflow.kernel.clock import utc_now

logger = logging.getLogger(__name__)


@shared_task(name="chat.jobs.end_orphaned_runs", acks_late=False)
def end_orphaned_runs() -> None:
    """End runs whose executor died."""
    try:
        ended = operations.end_orphaned_runs(now=utc_now())
    except (DatabaseError, InterfaceError) as error:
        if not is_away(error):
            raise
        connection.close()
        return  # the relay's pass tells; the next tick tries again
    if ended:
        logger.warning("Runs without an executor were ended; what was said is kept", extra={"ended": ended})
