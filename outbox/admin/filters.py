"""Filters of the lists, each answered by an index."""

from typing import Any

from django.contrib.admin import SimpleListFilter
from django.contrib.admin.options import ModelAdmin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from outbox.models import OutboxMessage, Status
from smartflow.events import EVENT_TYPES

READY, WAITING, UNSCHEDULED = "ready", "waiting", "unscheduled"
# Not the order of id, but the order in which an index holds the rows of this state; it ends where the state ends.
KEYSET_OF = {
    READY: ("ready_shard", "id"),
    WAITING: ("next_retry_at", "biz_type", "id"),
    UNSCHEDULED: ("biz_type", "id"),
}
CONDITION_OF: dict[str, dict[str, Any]] = {
    READY: {"ready_shard__isnull": False},
    WAITING: {"status": Status.PENDING, "next_retry_at__isnull": False},
    UNSCHEDULED: {"status": Status.PENDING, "next_retry_at__isnull": True},
}


def statuses_of(state: str) -> list[str]:
    """Return the statuses that a value of StateFilter covers; all for none."""
    if state in CONDITION_OF:
        return [Status.PENDING]
    return [state] if state in Status.values else list(Status.values)


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
        if state in CONDITION_OF:
            return queryset.filter(**CONDITION_OF[state])
        return queryset.filter(status=state) if state in Status.values else queryset


class EventTypeFilter(SimpleListFilter):
    """
    By event type, within a state in which idx_outbox_status_next holds the types in the order of id.

    It does so for rows without a next try. Elsewhere a rare type would be looked for through the whole table.
    """

    title = _("event type")
    parameter_name = "event_type"

    def lookups(self, request: HttpRequest, model_admin: "ModelAdmin[Any]") -> list[tuple[str, Any]]:
        state = getattr(model_admin, "fixed_status", "") or request.GET.get("status", "")
        if state in (UNSCHEDULED, Status.PUBLISHED, Status.CONSUMED, Status.DEAD):
            return [(event_type, event_type) for event_type in sorted(EVENT_TYPES)]
        return []

    def queryset(self, request: HttpRequest, queryset: QuerySet[OutboxMessage]) -> QuerySet[OutboxMessage]:
        return queryset.filter(biz_type=self.value(), next_retry_at__isnull=True) if self.value() else queryset
