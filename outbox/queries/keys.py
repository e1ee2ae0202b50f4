"""The rows of one key or of one request, what a key waits for, and what happened to one row.

Every read is bounded and answered by an index: a key with a million rows costs no more than one with ten.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import nlargest, nsmallest

from django.db.models import Exists, OuterRef, QuerySet

from outbox.models import ACTION_IDS_LENGTH, Attempt, KeyHold, OperatorAction, OutboxMessage, PausedType, Status
from outbox.registry import blocking_types
from outbox.walk import open_dead_letters
from smartflow.kernel.counts import BoundedCount

BEHIND_CAP = 1000
ATTEMPTS_SEEN = 100
# A key's dead rows up to so many are read to find the one that blocks it.
DEAD_SEEN = 50


@dataclass(frozen=True, kw_only=True)
class KeyStanding:
    """
    What a key waits for: its first row that is not finished, or that blocks it; None when nothing is left to do.

    `hold` is set when rows of the key are held behind `head`; `pause` when the type of `head` is paused.
    """

    key: str
    head: OutboxMessage | None
    hold: KeyHold | None
    pause: PausedType | None
    behind: BoundedCount


def list_key_ids(
    *,
    key: str,
    statuses: Sequence[str],
    limit: int,
    older_than: int | None = None,
    newer_than: int | None = None,
) -> list[int]:
    """
    Return the ids of a key's rows next to a place: the nearest above `newer_than`, else the nearest below `older_than`.

    One read a status, because only (message_key, status, id) is indexed: a key with a million rows costs no more.
    Shape: at most `limit` ids; ascending with `newer_than`, else descending.
    """
    found: list[int] = []
    for status in statuses:
        rows = OutboxMessage.objects.filter(message_key=key, status=status)
        found.extend(_ids_next_to(rows, limit, older_than, newer_than))
    return nsmallest(limit, found) if newer_than is not None else nlargest(limit, found)


def list_request_ids(
    *, request_id: str, limit: int, older_than: int | None = None, newer_than: int | None = None
) -> list[int]:
    """Return the ids of the rows that one request wrote, as list_key_ids does; from idx_outbox_request."""
    return _ids_next_to(OutboxMessage.objects.filter(request_id=request_id), limit, older_than, newer_than)


def _ids_next_to(
    rows: QuerySet[OutboxMessage], limit: int, older_than: int | None, newer_than: int | None
) -> list[int]:
    ids = rows.values_list("id", flat=True)
    if newer_than is not None:
        return list(ids.filter(id__gt=newer_than).order_by("id")[:limit])
    if older_than is not None:
        ids = ids.filter(id__lt=older_than)
    return list(ids.order_by("-id")[:limit])


def list_rows(*, ids: Sequence[int]) -> list[OutboxMessage]:
    """Return these rows in the order of id, payload and last_error deferred."""
    return list(OutboxMessage.objects.filter(id__in=ids).defer("payload", "last_error").order_by("id"))


def list_neighbours(*, key: str, message_id: int, limit: int) -> list[OutboxMessage]:
    """
    Return the row and up to `limit` rows of its key on either side, in the order of id, without their payloads.

    Shape: list of OutboxMessage with payload and last_error deferred.
    """
    ids = [
        *list_key_ids(key=key, statuses=Status.values, limit=limit, older_than=message_id),
        message_id,
        *list_key_ids(key=key, statuses=Status.values, limit=limit, newer_than=message_id),
    ]
    return list_rows(ids=ids)


def get_key_standing(*, key: str) -> KeyStanding:
    """Return what a key waits for. Source: the primary keys, and idx_outbox_key_status; six statements at most."""
    hold = KeyHold.objects.filter(pk=key).first()
    rows = OutboxMessage.objects.defer("payload")
    pending = rows.filter(message_key=key, status=Status.PENDING)
    head = rows.filter(pk=hold.head_id).first() if hold else None
    if head is None:
        blocking = _blocking_rows(key)
        first = pending.order_by("id").first()
        head = min([*blocking, *([first] if first else [])], key=lambda row: row.pk, default=None)
    if head is None:
        return KeyStanding(key=key, head=None, hold=None, pause=None, behind=BoundedCount(0))
    return KeyStanding(
        key=key,
        head=head,
        hold=hold,
        pause=PausedType.objects.filter(pk=head.biz_type).first() if head.status == Status.PENDING else None,
        behind=BoundedCount.of(pending.filter(id__gt=head.pk).values("id")[: BEHIND_CAP + 1].count(), cap=BEHIND_CAP),
    )


def _blocking_rows(key: str) -> list[OutboxMessage]:
    dead = list(OutboxMessage.objects.filter(message_key=key, status=Status.DEAD).defer("payload")[: DEAD_SEEN + 1])
    if len(dead) <= DEAD_SEEN:
        return [row for row in dead if row.discarded_at is None and row.biz_type in blocking_types()]
    # most of them are discarded, or let later events pass: what blocks anywhere is fewer rows to read
    anywhere = open_dead_letters().filter(biz_type__in=blocking_types(), message_key=key)
    return list(anywhere.order_by("id").defer("payload")[:1])


def list_attempts(*, message_id: int) -> list[Attempt]:
    """Return the newest tries of a row that failed, oldest first; from idx_outbox_attempt_message."""
    newest = Attempt.objects.filter(message_id=message_id).order_by("-id")[:ATTEMPTS_SEEN]
    return list(newest)[::-1]


def list_actions_on(*, row: OutboxMessage) -> list[OperatorAction]:
    """
    Return what operators did to a row, oldest first.

    The row has their numbers; one whose room was full has lost the beginning, and half of a number.
    """
    known = row.action_ids.split()
    if len(row.action_ids) == ACTION_IDS_LENGTH:
        known = known[1:]
    return list(OperatorAction.objects.filter(pk__in=known).order_by("id"))


def list_overtaken_ids(*, ids: Sequence[int]) -> list[int]:
    """
    Return those of the given rows behind which a later event of the same key was already handled.

    Requeued, such an event arrives after its follower. One query; one index read a row.
    """
    handled_later = OutboxMessage.objects.filter(
        message_key=OuterRef("message_key"), status=Status.CONSUMED, id__gt=OuterRef("id")
    )
    rows = OutboxMessage.objects.filter(Exists(handled_later), id__in=ids).order_by("id")
    return list(rows.values_list("id", flat=True))
