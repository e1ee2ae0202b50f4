"""Celery entry points of the edge."""

from celery import shared_task

from smartflow.api.idempotency_records import prune_records
from smartflow.kernel.clock import utc_now


@shared_task(name="smartflow.api.jobs.prune_idempotency_records", acks_late=False)
def prune_idempotency_records() -> None:
    """Delete the idempotency records whose day is over."""
    while prune_records(now=utc_now()):
        pass
