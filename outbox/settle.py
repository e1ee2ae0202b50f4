"""The last part of step 2: writes down what became of claimed rows, each UPDATE fenced by the claim's token."""

import json
import logging
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from functools import partial

from django.db import connection
from django.db.models import QuerySet

from outbox.database_errors import repeat_on_conflict
from outbox.models import Attempt, OutboxMessage, Status
from outbox.tally import TALLY

logger = logging.getLogger(__name__)

_SET = (
    "UPDATE agent_outbox_messages {joined} SET status = 'published', published_at = %s, ready_shard = NULL,"
    " claim_token = NULL, lease_until = NULL, updated_at = %s, published_by = %s, published_partition = place.part,"
    " published_offset = place.at {source} WHERE agent_outbox_messages.id = place.id AND claim_token = %s"
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
    Mark acknowledged rows published and return how many still were this claim's.

    Transaction: one UPDATE by primary keys, fenced by the token: a row that was consumed, rescheduled or claimed by
                 another relay meanwhile keeps its newer state.
    Shape:       `positions`: outbox_id → (partition, offset), absent where the transport has none.
    """
    if not ids:
        return 0
    known = positions or {}
    places = json.dumps([(pk, *known.get(pk, (None, None))) for pk in sorted(ids)])
    moment = str(connection.ops.adapt_datetimefield_value(now))
    if connection.vendor == "mysql":
        sql, parameters = _SET.format(joined=f"JOIN {_MYSQL_PLACES}", source=""), (places, moment, moment, by, token)
    else:
        sql, parameters = _SET.format(joined="", source=f"FROM {_SQLITE_PLACES}"), (moment, moment, by, places, token)
    return repeat_on_conflict(lambda: _execute(sql, parameters))


def _execute(sql: str, parameters: Sequence[str]) -> int:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return int(cursor.rowcount)


def bury(*, refused: Mapping[int, str], token: str, now: datetime, by: str, seconds: float) -> int:
    """Park rows that can never be published, each with its reason and one attempt; return how many."""
    moved = []
    for pk, reason in refused.items():
        step = partial(
            _held([pk], token).update,
            status=Status.DEAD,
            last_error=reason,
            ready_shard=None,
            claim_token=None,
            lease_until=None,
            updated_at=now,
        )
        if repeat_on_conflict(step):
            moved.append(pk)
            logger.error("An event is dead: it can never be published", extra={"outbox_id": pk, "reason": reason})
    tries = [
        Attempt(message_id=pk, step=Attempt.Step.PUBLISH, number=1, at=now, seconds=seconds, by=by, error=refused[pk])
        for pk in moved
    ]
    Attempt.objects.bulk_create(tries)
    TALLY.add("dead", len(moved))
    return len(moved)


def give_back(*, ids: Collection[int], token: str, now: datetime, reason: str | None = None) -> None:
    """Let go of rows that were not published, with the reason where it is a failure; no attempt is counted."""
    said = {} if reason is None else {"last_error": reason}
    if ids:
        repeat_on_conflict(lambda: _held(ids, token).update(claim_token=None, lease_until=None, updated_at=now, **said))
