"""Celery entry points of conversations."""

import logging
import time
from collections import Counter

from celery import shared_task
from django.db import DatabaseError, InterfaceError, connection

from chat.ledger_check import check_ledger as compare_with_ledger
from chat.llm.factory import build_chat_model
from chat.runs.sweeping import end_orphans
from chat.runs.titling import make_titles as make_due_titles
from outbox.database_clock import database_now
from outbox.database_errors import is_away
from smartflow.kernel.clock import utc_now

logger = logging.getLogger(__name__)


@shared_task(name="chat.jobs.end_orphaned_runs", acks_late=False)
def end_orphaned_runs() -> None:
    """End runs whose executor died."""
    try:
        ended = end_orphans(clock=database_now, wait=time.sleep)
    except (DatabaseError, InterfaceError) as error:
        if not is_away(error):
            raise
        connection.close()
        return  # the relay's pass tells; the next tick tries again
    if ended:
        logger.warning("Runs without an executor were ended; what was said is kept", extra={"ended": ended})


@shared_task(name="chat.jobs.make_titles", acks_late=False)
def make_titles() -> None:
    """Give conversations their titles."""
    try:
        make_due_titles(build_model=build_chat_model, clock=utc_now)
    except (DatabaseError, InterfaceError) as error:
        if not is_away(error):
            raise
        connection.close()


@shared_task(name="chat.jobs.check_ledger", acks_late=False)
def check_ledger() -> None:
    """Compare every sum with the ledger and tell; what differs is left for an operator to look at and mend."""
    counts = Counter(difference.table for difference in compare_with_ledger())
    if counts:
        logger.error(
            "Sums differ from the token ledger; run manage.py check_ledger", extra={"differences": dict(counts)}
        )
    else:
        logger.info("Every sum is what the token ledger says")
