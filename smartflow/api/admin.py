"""Idempotency records as operators see them: whose write was answered, or is still at work, and until when.

Nothing can be changed, and neither the answer nor what proves a claim is shown: the one is the user's own, and with the
other somebody could give it.
"""

from typing import Any

from django.contrib import admin
from django.contrib.admin import SimpleListFilter
from django.contrib.admin.options import ModelAdmin
from django.contrib.auth import get_user_model
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from smartflow.api.keyset_admin import ReadOnlyKeysetAdmin, coloured_label, column
from smartflow.api.models import IdempotencyRecord
from smartflow.kernel.clock import utc_now

AT_WORK, ANSWERED, ABANDONED, OVER = "at_work", "answered", "abandoned", "over"
STATES: dict[str, Any] = {
    AT_WORK: _("at work"),
    ANSWERED: _("answered"),
    # its owner died or gave the key back; the next request with the key does the work
    ABANDONED: _("free again"),
    OVER: _("over"),
}
COLOURS = {AT_WORK: "info", ANSWERED: "success", ABANDONED: "warning", OVER: "default"}


class KeptFilter(SimpleListFilter):
    """What still counts, or waits to be pruned (idx_idempotency_expires)."""

    title = _("kept")
    parameter_name = "kept"

    def lookups(self, request: HttpRequest, model_admin: "ModelAdmin[Any]") -> list[tuple[str, Any]]:
        return [("yes", _("still kept")), ("no", STATES[OVER])]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if self.value() == "yes":
            return queryset.filter(expires_at__gt=utc_now())
        return queryset.filter(expires_at__lte=utc_now()) if self.value() == "no" else queryset


@admin.register(IdempotencyRecord)
class IdempotencyRecordAdmin(ReadOnlyKeysetAdmin):
    """Newest first; found by user, and by user and key (uq_idempotency_user_key)."""

    list_display = ("key", "user_id", "state", "status", "lease_until", "expires_at")
    list_filter = (KeptFilter,)
    search_fields = ("key",)
    search_help_text = _("user name or user id, and behind it the key, exact")
    fields = (("key", "user_id"), ("state", "status"), ("lease_until", "expires_at"), "fingerprint")
    readonly_fields = ("state",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[IdempotencyRecord]:
        queryset: QuerySet[IdempotencyRecord] = super().get_queryset(request)
        return queryset.defer("body", "token")

    def get_keyset(self, request: HttpRequest) -> tuple[str, ...]:
        """Return the order that the index of the search or the filter holds."""
        if request.GET.get("q", "").strip():
            return ("user_id", "key")
        return ("-expires_at", "-id") if request.GET.get(KeptFilter.parameter_name) in ("yes", "no") else ("-id",)

    def find(
        self, request: HttpRequest, queryset: QuerySet[IdempotencyRecord], term: str
    ) -> QuerySet[IdempotencyRecord]:
        who, _space, key = term.partition(" ")
        ids = list(get_user_model()._default_manager.filter(username=who).values_list("pk", flat=True))
        if who.isascii() and who.isdigit() and len(who) < 10:
            ids.append(int(who))
        own = queryset.filter(user_id__in=ids)
        return own.filter(key=key.strip()) if key else own

    @column(description=_("state"))
    def state(self, record: IdempotencyRecord) -> str:
        name = _state_of(record)
        return coloured_label(STATES[name], COLOURS[name])


def _state_of(record: IdempotencyRecord) -> str:
    now = utc_now()
    if record.expires_at <= now:
        return OVER
    if record.status is not None:
        return ANSWERED
    return AT_WORK if record.lease_until > now else ABANDONED
