"""Which events are still under way, for who compares what events bring about with what caused them."""

from collections.abc import Collection

from outbox.models import OutboxMessage, Status


def list_under_way(*, event_ids: Collection[str]) -> frozenset[str]:
    """Return those of the events that may still be handled: neither handled, nor dead, nor pruned. One statement."""
    rows = OutboxMessage.objects.filter(event_id__in=event_ids, status__in=(Status.PENDING, Status.PUBLISHED))
    return frozenset(rows.values_list("event_id", flat=True))
