"""The tries that failed, one row each. What went well is on the event's row; a broker that is away is nobody's try.

Called by dispatch and relay, in the transaction that moves the event's row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from outbox.models import Attempt


@dataclass(frozen=True, kw_only=True, slots=True)
class FailedTry:
    """One try; `number` counts from 1, `error` is text that describe_error() made fit to be kept."""

    message_id: int
    step: str
    number: int
    seconds: float
    error: str


def record_failed_tries(*, tries: Sequence[FailedTry], by: str, now: datetime) -> None:
    """
    Write down what was tried in vain, in one INSERT.

    Transaction: the caller's, which moves the rows.
    """
    Attempt.objects.bulk_create(
        Attempt(
            message_id=one.message_id,
            step=one.step,
            number=one.number,
            at=now,
            seconds=round(one.seconds, 6),
            by=by,
            error=one.error,
        )
        for one in tries
    )
