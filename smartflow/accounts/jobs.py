"""Celery entry points of accounts."""

from datetime import timedelta

from celery import shared_task
from django.core.management import call_command

from smartflow.accounts import operations, quota
from smartflow.kernel.clock import utc_now

# Ended sessions stay this long, so that an operator who looks into a theft still finds them.
KEPT = timedelta(days=30)


@shared_task(name="smartflow.accounts.jobs.release_expired_holds", acks_late=False)
def release_expired_holds() -> None:
    """Give users back what was set aside for runs that died."""
    while quota.release_expired_holds(now=utc_now()):
        pass


@shared_task(name="smartflow.accounts.jobs.prune_sessions", acks_late=False)
def prune_sessions() -> None:
    """Delete token sessions that expired long ago, and the admin's expired sign-ins."""
    while operations.prune_sessions(expired_before=utc_now() - KEPT):
        pass
    call_command("clearsessions")
