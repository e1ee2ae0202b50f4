"""The last part of step 2: writes down what became of claimed rows, each UPDATE fenced by the claim's token."""

import json
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from django.db import connection, transaction
from django.db.models import QuerySet

from outbox.attempts import FailedTry, record_failed_tries
from outbox.database_errors import repeat_on_conflict
from outbox.locks import unlocked, update_or_pass
from outbox.models import Attempt, OutboxMessage, Status
from outbox.tally import TALLY
from smartflow.api.rows import execute

logger = logging.getLogger(__name__)

# For how long a settle waits for a row that somebody has locked. Larger: such a row holds the relay up for longer.
LOCK_WAIT_SECONDS = 1
# A row that the consumer was faster with keeps what it says, and still learns where its message is and who sent it.
# `consumed_at` stands for its status, which is final: naming that here would let MariaDB come through an index of it.
_SET = (
    "UPDATE agent_outbox_messages {joined} SET status = CASE WHEN consumed_at IS NULL THEN 'published' ELSE status END,"
    " published_at = CASE WHEN consumed_at IS NULL THEN %s ELSE published_at END, ready_shard = NULL,"
    " claim_token = NULL, lease_until = NULL, updated_at = %s, published_by = %s, published_partition = place.part,"
    " published_offset = place.at {source} WHERE agent_outbox_messages.id = place.id"
    " AND (claim_token = %s OR (consumed_at IS NOT NULL AND published_by = ''))"
)
# One statement for many rows with a number each; the rows are visited in the order given, by primary key.
_MYSQL_PLACES = (
    "JSON_TABLE(%s, '$[*]' COLUMNS (id BIGINT PATH '$[0]', part INT PATH '$[1]', at BIGINT PATH '$[2]')) AS place"
)
_SQLITE_PLACES = (
    "(SELECT value ->> 0 AS id, value ->> 1 AS part, value ->> 2 AS at FROM json_each(%s) ORDER BY 1) AS place"
)


def _held(ids: Collection[int], token: str) -> QuerySet[OutboxMessage]:
    """
    Return the rows that still belong to this claim: the consumer or another relay may have moved on meanwhile.

    A constraint says that a row with a token is pending. Naming the status here would let MariaDB come through an index
    of it: index before row, where the consumer locks row before index, and one of them dies in a deadlock.
    """
    return OutboxMessage.objects.filter(id__in=ids, claim_token=token)


def settle_published(
    *,
    ids: Sequence[int],
    token: str,
    now: datetime,
    by: str = "",
    positions: Mapping[int, tuple[int, int]] | None = None,
) -> int:
    """
    Mark acknowledged rows published and return for how many that was written down.

    Transaction: one UPDATE by primary keys, fenced by the token: a row that was rescheduled or claimed by another relay
                 meanwhile keeps its newer state; one that was consumed gets the place that it did not have, and stays.
    Shape:       `positions`: outbox_id → (partition, offset), absent where the transport has none.
    """
    known = positions or {}
    moment = str(connection.ops.adapt_datetimefield_value(now))

    def settle(ids: Collection[int]) -> int:
        if not ids:
            return 0
        places = json.dumps([(pk, *known.get(pk, (None, None))) for pk in sorted(ids)])
        if connection.vendor == "mysql":
            return execute(_SET.format(joined=f"JOIN {_MYSQL_PLACES}", source=""), places, moment, moment, by, token)
        return execute(_SET.format(joined="", source=f"FROM {_SQLITE_PLACES}"), moment, moment, by, places, token)

    def settle_unlocked() -> int:
        with transaction.atomic():
            return settle(set(unlocked(OutboxMessage.objects.filter(id__in=ids)).values_list("id", flat=True)))

    # What a handler has in hand for long is the handler's to write, and must not hold up the rest.
    return update_or_pass(lambda: settle(ids), without_locked=settle_unlocked, seconds=LOCK_WAIT_SECONDS)


@dataclass(frozen=True, kw_only=True, slots=True)
class Astray:
    """Acknowledged rows that go on without this relay: what another relay has, and all that come round again."""

    fenced: int = 0
    ids: frozenset[int] = frozenset()


def find_astray(*, ids: Sequence[int], token: str, by: str, settled_at: datetime) -> Astray:
    """
    Look at a batch of which settle_published() found fewer rows than it was given.

    A row that a consumer has sent round again or buried was published, and so was one that a handler has locked still;
    fenced is what another relay took over.
    """
    fields = ("id", "consumed_at", "published_by", "published_at", "ready_shard", "status", "claim_token")
    astray, fenced = set(ids), len(ids)
    for pk, consumed_at, publisher, published_at, ready_shard, status, holder in OutboxMessage.objects.filter(
        id__in=ids
    ).values_list(*fields):
        is_settled = consumed_at is not None or (publisher, published_at) == (by, settled_at)
        if is_settled:
            astray.discard(pk)
        if is_settled or holder == token or (ready_shard is None and status != Status.PUBLISHED):
            fenced -= 1
    return Astray(fenced=fenced, ids=frozenset(astray))


@dataclass(frozen=True, kw_only=True, slots=True)
class Refused:
    """A row that can never be published, the number of the try that showed it, and why."""

    outbox_id: int
    number: int
    reason: str


def bury(*, refused: Sequence[Refused], token: str, now: datetime, by: str, seconds: float) -> int:
    """
    Park rows that can never be published, each with its reason and its try; return how many.

    Transaction: one for all of them.
    """
    moved = repeat_on_conflict(lambda: _bury(refused, token, now, by, seconds))
    for row in moved:
        fields = {"outbox_id": row.outbox_id, "reason": row.reason}
        logger.error("An event is dead: it can never be published", extra=fields)
    TALLY.add("dead", len(moved))
    return len(moved)


def _bury(refused: Sequence[Refused], token: str, now: datetime, by: str, seconds: float) -> list[Refused]:
    with transaction.atomic():
        moved = [
            row
            for row in sorted(refused, key=lambda row: row.outbox_id)
            if _held([row.outbox_id], token).update(
                status=Status.DEAD,
                last_error=row.reason,
                ready_shard=None,
                claim_token=None,
                lease_until=None,
                updated_at=now,
            )
        ]
        tries = [
            FailedTry(
                message_id=row.outbox_id,
                step=Attempt.Step.PUBLISH,
                number=row.number,
                seconds=seconds,
                error=row.reason,
            )
            for row in moved
        ]
        record_failed_tries(tries=tries, by=by, now=now)
    return moved


def give_back(*, ids: Collection[int], token: str, now: datetime, reason: str | None = None) -> None:
    """Let go of rows that were not published, with the reason where it is a failure; no attempt is counted."""
    said = {} if reason is None else {"last_error": reason}
    if ids:
        repeat_on_conflict(lambda: _held(ids, token).update(claim_token=None, lease_until=None, updated_at=now, **said))


def let_wait(*, ids: Collection[int], token: str, until: datetime, now: datetime, reason: str) -> None:
    """Let rows that the broker does not take now wait; the claim lets their keys wait with them. No attempt counts."""
    step = partial(
        _held(ids, token).update,
        ready_shard=None,
        next_retry_at=until,
        claim_token=None,
        lease_until=None,
        updated_at=now,
        last_error=reason,
    )
    repeat_on_conflict(step)
