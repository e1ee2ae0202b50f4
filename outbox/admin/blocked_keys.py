"""The keys whose events are held, each with what it waits for; its page has the rest."""

from typing import Any

from django.contrib import admin
from django.db.models import OuterRef, QuerySet, Subquery
from django.db.models.functions import Left
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from outbox.admin import display as words
from outbox.database_clock import database_now
from outbox.models import KeyHold, OutboxMessage, Status
from outbox.queries import kind_of_error
from smartflow.api.admin_table import link
from smartflow.api.keyset_admin import ReadOnlyKeysetAdmin, column, one_line
from smartflow.kernel.durations import compact_duration


@admin.register(KeyHold)
class KeyHoldAdmin(ReadOnlyKeysetAdmin):
    """By key, which is the table's primary key."""

    keyset = ("message_key",)
    list_display = ("key", "held_for", "head", "head_type", "why")
    list_display_links = None
    search_fields = ("message_key",)
    search_help_text = _("key, exact")

    def get_queryset(self, request: HttpRequest) -> QuerySet[KeyHold]:
        head = OutboxMessage.objects.filter(pk=OuterRef("head_id"))
        queryset: QuerySet[KeyHold] = super().get_queryset(request)
        return queryset.annotate(
            head_type=Subquery(head.values("biz_type")),
            head_status=Subquery(head.values("status")),
            head_error=Subquery(head.annotate(error=Left("last_error", words.ERROR_EXCERPT_BYTES)).values("error")),
        )

    def find(self, request: HttpRequest, queryset: QuerySet[KeyHold], term: str) -> QuerySet[KeyHold]:
        return queryset.filter(pk=term)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm("outbox.view_outboxmessage")

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Lead to the key's page."""
        return HttpResponseRedirect(words.key_url(object_id))

    @column(description=_("key"))
    def key(self, hold: KeyHold) -> SafeString:
        return link(words.key_url(hold.pk), hold.pk)

    @column(description=_("held for"))
    def held_for(self, hold: KeyHold) -> SafeString:
        return one_line(compact_duration((database_now() - hold.since).total_seconds()))

    @column(description=_("waits for"))
    def head(self, hold: KeyHold) -> SafeString:
        return link(words.row_url(hold.head_id), f"#{hold.head_id}")

    @column(description=_("event type"))
    def head_type(self, hold: Any) -> str:
        return hold.head_type or "-"

    @column(description=_("why"))
    def why(self, hold: Any) -> Any:
        if hold.head_status == Status.DEAD:
            return kind_of_error(error=hold.head_error) or _("dead")
        return _("paused") if hold.head_status == Status.PENDING else "-"
