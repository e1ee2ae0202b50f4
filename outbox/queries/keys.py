"""The rows of one key, of one request, and what stands in the way of a row.

Every read is bounded and answered by an index: a key with a million rows costs no more than one with ten.
"""

from collections.abc import Sequence
from heapq import nlargest, nsmallest

from django.db.models import Exists, OuterRef

from outbox.models import OutboxMessage, Status


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
        ids = OutboxMessage.objects.filter(message_key=key, status=status).values_list("id", flat=True)
        if newer_than is not None:
            found.extend(ids.filter(id__gt=newer_than).order_by("id")[:limit])
        elif older_than is not None:
            found.extend(ids.filter(id__lt=older_than).order_by("-id")[:limit])
        else:
            found.extend(ids.order_by("-id")[:limit])
    return nsmallest(limit, found) if newer_than is not None else nlargest(limit, found)


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
    return list(OutboxMessage.objects.filter(id__in=ids).defer("payload", "last_error").order_by("id"))


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
