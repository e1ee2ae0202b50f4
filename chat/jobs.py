"""Celery entry points of conversations."""

import logging

from celery import shared_task

from chat import operations
from smartflow.kernel.clock import utc_now

logger = logging.getLogger(__name__)


@shared_task(name="chat.jobs.end_orphaned_runs", acks_late=False)
def end_orphaned_runs() -> None:
    """End runs whose executor died."""
    ended = operations.end_orphaned_runs(now=utc_now())
    if ended:
        logger.warning("Runs without an executor were ended; what was said is kept", extra={"ended": ended})
