"""Filters of the lists, each answered by an index."""

from typing import Any

from django.contrib.admin import SimpleListFilter
from django.contrib.admin.options import ModelAdmin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from outbox.models import OutboxMessage, Status
from smartflow.events import EVENT_TYPES


class StatusFilter(SimpleListFilter):
    """By status; idx_outbox_status_id gives the rows in the list's own order."""

    title = _("status")
    parameter_name = "status"

    def lookups(self, request: HttpRequest, model_admin: "ModelAdmin[Any]") -> list[tuple[str, Any]]:
        return [
            (Status.PENDING.value, _("pending")),
            (Status.PUBLISHED.value, _("published")),
            (Status.CONSUMED.value, _("consumed")),
            (Status.DEAD.value, _("dead")),
        ]

    def queryset(self, request: HttpRequest, queryset: QuerySet[OutboxMessage]) -> QuerySet[OutboxMessage]:
        return queryset.filter(status=self.value()) if self.value() in Status.values else queryset


class EventTypeFilter(SimpleListFilter):
    """
    By event type, within a status that is not final.

    Not offered for consumed rows and for all rows: nothing indexes the type there, and a rare type would be looked for
    through the whole table.
    """

    title = _("event type")
    parameter_name = "event_type"

    def lookups(self, request: HttpRequest, model_admin: "ModelAdmin[Any]") -> list[tuple[str, Any]]:
        if self._statuses(request, model_admin) & {Status.PENDING, Status.PUBLISHED, Status.DEAD}:
            return [(event_type, event_type) for event_type in sorted(EVENT_TYPES)]
        return []

    def queryset(self, request: HttpRequest, queryset: QuerySet[OutboxMessage]) -> QuerySet[OutboxMessage]:
        return queryset.filter(biz_type=self.value()) if self.value() else queryset

    @staticmethod
    def _statuses(request: HttpRequest, model_admin: "ModelAdmin[Any]") -> set[str]:
        fixed = getattr(model_admin, "fixed_status", "")
        return {fixed or request.GET.get("status", "")}


class DiscardedFilter(SimpleListFilter):
    """Dead letters that still wait for a decision, or those that were given up."""

    title = _("decision")
    parameter_name = "discarded"

    def lookups(self, request: HttpRequest, model_admin: "ModelAdmin[Any]") -> list[tuple[str, Any]]:
        return [("no", _("open")), ("yes", _("discarded"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[OutboxMessage]) -> QuerySet[OutboxMessage]:
        if self.value() in {"no", "yes"}:
            return queryset.filter(discarded_at__isnull=self.value() == "no")
        return queryset
