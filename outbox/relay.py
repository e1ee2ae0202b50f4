"""Step 2: claim → publish → mark published. One pass is one function; any number may run at once.

Which rows a pass may take is claim.py's matter, which rows become ready again is holds.py's. No lock is held while
publishing.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from django.db.models import QuerySet

from outbox.claim import Claim, ClaimedRow, Share, claim_rows
from outbox.database_errors import repeat_on_conflict
from outbox.envelope import EnvelopeUnreadable, encode_wire
from outbox.holds import paused_types, release_held_rows, wake_due_rows
from outbox.models import OutboxMessage, Status
from outbox.transports import OutgoingMessage, PublishFailure, Transport
from smartflow.kernel.clock import Clock

logger = logging.getLogger(__name__)

# After a broker's failure; the attempt is not counted, because it was not the row's fault.
UNAVAILABLE_WAIT_SECONDS = 1.0


@dataclass(kw_only=True)
class PassResult:
    """What one pass did; `is_transport_down` when it stopped because of the transport."""

    published: int = 0
    dead: int = 0
    fenced: int = 0
    is_transport_down: bool = False


def run_pass(
    *, transport: Transport, clock: Clock, batch_size: int, lease_seconds: float, publish_seconds: float, seconds: float
) -> PassResult:
    """
    Publish ready rows until none is left or `seconds` have gone by.

    Transaction: two short ones per batch, around publishing, never across it.
    Order:       by id within one key; none across keys.
    Twice:       safe; a pass that dies after publishing leaves rows that are published again.
    """
    result = PassResult()
    deadline = time.monotonic() + seconds
    wake_due_rows(now=clock())
    release_held_rows(now=clock())
    share = Share(paused=paused_types())
    while time.monotonic() < deadline:
        claim = claim_rows(limit=batch_size, lease_seconds=lease_seconds, now=clock(), share=share)
        if not claim.rows:
            break
        _publish(claim, transport, clock, publish_seconds, result)
        if result.is_transport_down:
            break
    return result


def _publish(claim: Claim, transport: Transport, clock: Clock, publish_seconds: float, result: PassResult) -> None:
    messages, failures = _encode(claim.rows)
    failures |= transport.publish(messages, timeout_seconds=publish_seconds).failures
    now = clock()
    acknowledged = [message.outbox_id for message in messages if message.outbox_id not in failures]
    settled = settle_published(ids=acknowledged, token=claim.token, now=now)
    result.published += settled
    result.fenced += len(acknowledged) - settled
    refused = {pk: failure.reason for pk, failure in failures.items() if failure.is_permanent}
    result.dead += _settle_dead(refused, claim.token, now)
    unsent = {pk: failure.reason for pk, failure in failures.items() if not failure.is_permanent}
    if unsent:
        result.is_transport_down = True
        _release(unsent, claim.token, now)


def _encode(rows: Sequence[ClaimedRow]) -> tuple[list[OutgoingMessage], dict[int, PublishFailure]]:
    messages: list[OutgoingMessage] = []
    failures: dict[int, PublishFailure] = {}
    for row in rows:
        try:
            value = encode_wire(outbox_id=row.id, event_id=row.event_id, stored=row.payload)
        except EnvelopeUnreadable as error:
            failures[row.id] = PublishFailure(reason=f"unreadable payload: {error}", is_permanent=True)
        else:
            messages.append(OutgoingMessage(outbox_id=row.id, topic=row.topic, key=row.message_key, value=value))
    return messages, failures


def _held(ids: Sequence[int], token: str) -> QuerySet[OutboxMessage]:
    """
    Return the rows that still belong to this claim: the consumer or another relay may have moved on meanwhile.

    A constraint says that a row with a token is pending. Naming the status here would let MariaDB come through an index
    of it: index before row, where the consumer locks row before index, and one of them dies in a deadlock.
    """
    return OutboxMessage.objects.filter(id__in=ids, claim_token=token)


def settle_published(*, ids: Sequence[int], token: str, now: datetime) -> int:
    """
    Mark acknowledged rows published and return how many still were this claim's.

    Transaction: one UPDATE by primary keys, fenced by the token: a row that was consumed, rescheduled or claimed by
                 another relay meanwhile keeps its newer state.
    """
    if not ids:
        return 0
    return repeat_on_conflict(
        lambda: _held(ids, token).update(
            status=Status.PUBLISHED,
            published_at=now,
            ready_shard=None,
            claim_token=None,
            lease_until=None,
            updated_at=now,
        )
    )


def _settle_dead(refused: dict[int, str], token: str, now: datetime) -> int:
    moved = 0
    for pk, reason in refused.items():
        bury = partial(
            _held([pk], token).update,
            status=Status.DEAD,
            last_error=reason,
            ready_shard=None,
            claim_token=None,
            lease_until=None,
            updated_at=now,
        )
        moved += repeat_on_conflict(bury)
        logger.error("An event is dead: it can never be published", extra={"outbox_id": pk, "reason": reason})
    return moved


def _release(unsent: dict[int, str], token: str, now: datetime) -> None:
    """Give rows back after the broker's failure: due again shortly, no attempt counted."""
    repeat_on_conflict(
        lambda: _held(list(unsent), token).update(
            ready_shard=None,
            claim_token=None,
            lease_until=None,
            next_retry_at=now + timedelta(seconds=UNAVAILABLE_WAIT_SECONDS),
            last_error=f"not published: {next(iter(unsent.values()))}",
            updated_at=now,
        )
    )
