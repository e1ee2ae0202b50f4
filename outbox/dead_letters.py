"""Step 5: the rows parked after their last attempt. Operators requeue or discard them, from the admin or a command."""

import logging
from collections.abc import Sequence
from datetime import datetime

from django.db.models import F

from outbox.models import OutboxMessage, Status
from outbox.nudge import nudge_after_commit
from smartflow.kernel.errors import Invalid
from smartflow.kernel.text import noop as _

logger = logging.getLogger(__name__)


class ReasonMissing(Invalid):
    """Requeue and discard need a reason: it is what the next operator reads."""

    code = "40004"
    message = _("A reason is needed.")


def requeue_dead_letters(*, ids: Sequence[int], by: str, reason: str, now: datetime) -> int:
    """
    Send dead rows round again with a full set of attempts and return how many moved.

    Transaction: the caller's or its own statement; a row that is not dead is left alone.
    Order:       rows of the same key that were handled meanwhile are not undone: the requeued event arrives after them.
    Twice:       the second call moves nothing.
    Raises:      ReasonMissing.
    """
    _check_reason(reason)
    moved = OutboxMessage.objects.filter(id__in=ids, status=Status.DEAD).update(
        status=Status.PENDING,
        ready_shard=F("shard"),
        retry_count=0,
        next_retry_at=None,
        discarded_at=None,
        discard_reason="",
        updated_at=now,
    )
    nudge_after_commit()
    logger.info("Dead letters were requeued", extra={"by": by, "reason": reason, "moved": moved})
    return moved


def discard_dead_letters(*, ids: Sequence[int], by: str, reason: str, now: datetime) -> int:
    """
    Give dead rows up and return how many were marked. They stay dead and visible, apart from the open ones.

    Twice:  a discarded row keeps its first reason.
    Raises: ReasonMissing.
    """
    _check_reason(reason)
    marked = OutboxMessage.objects.filter(id__in=ids, status=Status.DEAD, discarded_at__isnull=True).update(
        discarded_at=now, discard_reason=reason[:255], updated_at=now
    )
    logger.info("Dead letters were discarded", extra={"by": by, "reason": reason, "marked": marked})
    return marked


def _check_reason(reason: str) -> None:
    if not reason.strip():
        raise ReasonMissing
