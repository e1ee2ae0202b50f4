"""What keeps the table in order beside the flow: rescan what was published and lost, prune what is finished.

Called by jobs. Every function is bounded; the flow never waits for one.
"""

from collections.abc import Sequence
from datetime import datetime

from django.db import transaction
from django.db.models import F

from outbox.claim import unlocked
from outbox.database_errors import repeat_on_conflict
from outbox.models import OutboxMessage, Status


def rescan_published(*, older_than: datetime, now: datetime, limit: int = 500) -> int:
    """
    Send rows round again that were published before `older_than` and never consumed; return how many.

    The broker may have lost the message, or the topic its retention. A duplicate does no harm: dispatch handles once.
    Transaction: its own; a row that a consumer has in hand at this moment is not stuck and is passed over.
    """
    stuck = OutboxMessage.objects.filter(status=Status.PUBLISHED, published_at__lt=older_than).order_by("id")
    ids = list(stuck.values_list("id", flat=True)[:limit])
    if not ids:
        return 0
    return repeat_on_conflict(lambda: _send_round_again(ids, older_than, now))


def _send_round_again(ids: Sequence[int], older_than: datetime, now: datetime) -> int:
    with transaction.atomic():
        # By primary key alone, for the reason of relay._held; so the status is looked at here.
        rows = unlocked(OutboxMessage.objects.filter(id__in=ids)).values_list("id", "status", "published_at")
        stuck = [pk for pk, status, at in rows if status == Status.PUBLISHED and at is not None and at < older_than]
        return OutboxMessage.objects.filter(id__in=stuck).update(
            status=Status.PENDING, ready_shard=F("shard"), next_retry_at=None, updated_at=now
        )


def prune_consumed(*, older_than: datetime, limit: int = 1000) -> int:
    """
    Delete rows consumed before `older_than` by primary key and return how many.

    Looks at the `limit` oldest consumed rows only: no index is on `consumed_at`, so the search for one more old row
    would read every finished row there is.
    """
    oldest = OutboxMessage.objects.filter(status=Status.CONSUMED).order_by("id")
    rows = oldest.values_list("id", "consumed_at")[:limit]
    ids = [pk for pk, consumed_at in rows if consumed_at is not None and consumed_at < older_than]
    if not ids:
        return 0
    deleted, _ = OutboxMessage.objects.filter(id__in=ids).delete()
    return deleted
