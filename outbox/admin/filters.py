"""Filters of the lists, each answered by an index."""

from typing import Any

from django.contrib.admin import SimpleListFilter
from django.contrib.admin.options import ModelAdmin
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from outbox.models import OutboxMessage, Status
from smartflow.api.index_hints import is_exactly, read_by
from smartflow.events import EVENT_TYPES

READY, WAITING, UNSCHEDULED = "ready", "waiting", "unscheduled"
# In these idx_outbox_status_next holds the types one behind another, because none of their rows has a next try.
# Of dead rows only those that are open, and these have a list of their own with such a filter.
TYPED = (Status.PUBLISHED, Status.CONSUMED)
_KEYSET_OF = {
    READY: ("ready_shard", "id"),
    WAITING: ("next_retry_at", "biz_type", "id"),
    UNSCHEDULED: ("status", "biz_type", "id"),
}


def keyset_of(*, state: str, event_type: str = "") -> tuple[str, ...]:
    """
    Return the order in which an index holds the rows of a state; empty for no state.

    The status belongs to it, though it is the same in every row: see is_exactly.
    """
    if state in _KEYSET_OF:
        return _KEYSET_OF[state]
    if state in Status.values:
        return ("-status", "-biz_type", "-id") if event_type and state in TYPED else ("-status", "-id")
    return ()


CONDITION_OF: dict[str, Q] = {
    READY: Q(ready_shard__isnull=False),
    WAITING: Q(status=Status.PENDING, next_retry_at__isnull=False),
    UNSCHEDULED: is_exactly("status", Status.PENDING) & Q(next_retry_at__isnull=True),
    **{status: is_exactly("status", status) for status in Status.values},
}


def statuses_of(state: str) -> list[str]:
    """Return the statuses that a value of StateFilter covers; all for none."""
    if state in Status.values:
        return [state]
    return [Status.PENDING] if state in CONDITION_OF else list(Status.values)


class StateFilter(SimpleListFilter):
    """
    By status, or by what a pending row waits for.

    Held rows have no index of their own: their keys are listed as blocked keys.
    """

    title = _("state")
    parameter_name = "status"

    def lookups(self, request: HttpRequest, model_admin: "ModelAdmin[Any]") -> list[tuple[str, Any]]:
        return [
            (Status.PENDING.value, _("pending")),
            (READY, _("pending: ready or in flight")),
            (UNSCHEDULED, _("pending: ready or held")),
            (WAITING, _("pending: waiting for a try")),
            (Status.PUBLISHED.value, _("published")),
            (Status.CONSUMED.value, _("consumed")),
            (Status.DEAD.value, _("dead")),
        ]

    def queryset(self, request: HttpRequest, queryset: QuerySet[OutboxMessage]) -> QuerySet[OutboxMessage]:
        state = self.value() or ""
        if request.GET.get("q"):
            # A search goes through the index of its key, which tells statuses apart and nothing finer.
            return queryset.filter(status__in=statuses_of(state)) if state else queryset
        if state not in CONDITION_OF:
            return queryset
        if state in Status.values and not request.GET.get(EventTypeFilter.parameter_name):
            # MySQL 8 would otherwise read and sort every row of a state that has few.
            queryset = read_by(queryset, index="idx_outbox_status_id")
        return queryset.filter(CONDITION_OF[state])


class EventTypeFilter(SimpleListFilter):
    """
    By event type, within a state in which idx_outbox_status_next holds the types in the order of id.

    It does so for rows without a next try. Elsewhere a rare type would be looked for through the whole table.
    """

    title = _("event type")
    parameter_name = "event_type"

    def lookups(self, request: HttpRequest, model_admin: "ModelAdmin[Any]") -> list[tuple[str, Any]]:
        state = getattr(model_admin, "fixed_status", "") or request.GET.get("status", "")
        if state in TYPED:
            return [(event_type, event_type) for event_type in sorted(EVENT_TYPES)]
        return []

    def queryset(self, request: HttpRequest, queryset: QuerySet[OutboxMessage]) -> QuerySet[OutboxMessage]:
        event_type = self.value()
        return (
            queryset.filter(is_exactly("biz_type", event_type), next_retry_at__isnull=True) if event_type else queryset
        )
