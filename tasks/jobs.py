"""Celery entry points of tasks."""

from celery import shared_task
from django.conf import settings
from django.db import DatabaseError, InterfaceError, connection

from outbox.database_errors import is_away
from smartflow.kernel.clock import utc_now
from tasks import operations


@shared_task(name="tasks.jobs.promote_due_tasks", acks_late=False)
def promote_due_tasks() -> None:
    """Store the priority of tasks that became urgent without a reader."""
    try:
        operations.promote_due_tasks(now=utc_now())
    except (DatabaseError, InterfaceError) as error:
        if not is_away(error):
            raise
        connection.close()  # the relay's pass tells; the next tick does the same work


@shared_task(name="tasks.jobs.tell_due_soon", acks_late=False)
def tell_due_soon() -> None:
    """Tell of deadlines that are near."""
    try:
        operations.tell_due_soon(within=settings.TASK_DUE_SOON, now=utc_now())
    except (DatabaseError, InterfaceError) as error:
        if not is_away(error):
            raise
        connection.close()


@shared_task(name="tasks.jobs.prune_deleted_tasks", acks_late=False)
def prune_deleted_tasks() -> None:
    """Delete tasks that were deleted longer ago than they can be brought back."""
    while operations.prune_deleted_tasks(now=utc_now()):
        pass
