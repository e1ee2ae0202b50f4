"""Rows that are not ready: wakes those whose retry is due, and lets go those that nothing holds back any more.

Called by a relay once a second. Every function is safe to run twice and beside itself: the next claim decides again
whether a row may be taken.
"""

from collections.abc import Sequence
from datetime import datetime

from django.db import connection, transaction
from django.db.models import Exists, F, OuterRef, Q, QuerySet

from outbox.database_errors import repeat_on_conflict
from outbox.locks import unlocked
from outbox.models import KeyHold, OutboxMessage, PausedType, Status
from outbox.registry import blocking_types

# Larger: fewer statements for a long queue, and a longer transaction.
BATCH = 1000


def paused_types() -> frozenset[str]:
    """Return the event types that relays must leave alone now."""
    return frozenset(PausedType.objects.values_list("event_type", flat=True))


def wake_due_rows(*, now: datetime, limit: int = BATCH) -> int:
    """
    Make rows ready whose retry is due and return how many; those that waited longest first.

    Transaction: its own; rows that somebody else has in hand are passed over.
    """
    due = OutboxMessage.objects.filter(status=Status.PENDING, next_retry_at__lte=now).order_by("next_retry_at")
    ids = list(due.values_list("id", flat=True)[:limit])
    if not ids:
        return 0
    return repeat_on_conflict(lambda: _wake(ids, now))


def _wake(ids: Sequence[int], now: datetime) -> int:
    with transaction.atomic():
        return len(_make_ready(ids, now))


def release_held_rows(*, now: datetime, limit: int = BATCH) -> int:
    """
    Let go rows of keys whose blocking row blocks no more, and return how many; key by key.

    Transaction: one for up to `limit` keys and rows. It holds the keys' KeyHold, which whoever holds a row writes in
                 the same transaction: so no row is held in between and forgotten.
    """
    keys = list(_open_holds().order_by("pk").values_list("message_key", flat=True)[:limit])
    return repeat_on_conflict(lambda: _release(keys, now, limit)) if keys else 0


def _open_holds() -> QuerySet[KeyHold]:
    blocking = Q(status=Status.DEAD, discarded_at__isnull=True, biz_type__in=blocking_types())
    paused = Q(status=Status.PENDING, biz_type__in=PausedType.objects.values("event_type"))
    return KeyHold.objects.filter(~Exists(OutboxMessage.objects.filter(blocking | paused, id=OuterRef("head_id"))))


def _release(keys: Sequence[str], now: datetime, limit: int) -> int:
    with transaction.atomic():
        holds = KeyHold.objects.filter(pk__in=keys).order_by("pk")
        if connection.features.has_select_for_update_skip_locked:
            holds = holds.select_for_update(skip_locked=True)
        mine = {hold.pk for hold in holds}
        held = OutboxMessage.objects.filter(
            message_key__in=mine, status=Status.PENDING, ready_shard__isnull=True, next_retry_at__isnull=True
        )
        key_of = dict(held.order_by("message_key", "id").values_list("id", "message_key")[:limit])
        ready = _make_ready(list(key_of), now)
        left_over = {key for pk, key in key_of.items() if pk not in ready}
        if len(key_of) == limit:  # what stands behind the last key was not looked at, nor perhaps its last rows
            last = keys.index(list(key_of.values())[-1])
            left_over.update(keys[last:])
        KeyHold.objects.filter(pk__in=mine - left_over).delete()
    return len(ready)


def _make_ready(ids: Sequence[int], now: datetime) -> set[int]:
    # By primary key alone: through an index of the status this would lock index before row, where dispatch locks row
    # before index. So what the row says is looked at here.
    rows = unlocked(OutboxMessage.objects.filter(id__in=ids).order_by("id"))
    ready = {
        pk
        for pk, status, ready_shard, retry_at in rows.values_list("id", "status", "ready_shard", "next_retry_at")
        if status == Status.PENDING and ready_shard is None and (retry_at is None or retry_at <= now)
    }
    OutboxMessage.objects.filter(id__in=ready).update(
        ready_shard=F("shard"), next_retry_at=None, ready_at=now, updated_at=now
    )
    return ready
