"""The list of all rows and the page of one; nothing here changes a row."""

from typing import Any, ClassVar

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from outbox import queries
from outbox.admin import display as words
from outbox.admin.filters import EventTypeFilter, StateFilter, keyset_of, statuses_of
from outbox.admin.pages import key_page, row_page
from outbox.database_clock import database_now
from outbox.models import OutboxMessage
from smartflow.api.admin_table import link
from smartflow.api.keyset_admin import AFTER, BEFORE, ReadOnlyKeysetAdmin, coloured_label, column, one_line


class OutboxRowAdmin(ReadOnlyKeysetAdmin):
    """What the list of all rows and the list of dead letters share."""

    fixed_status = ""
    list_display: tuple[str, ...] = (
        "row_id",
        "state",
        "biz_type",
        "short_key",
        "age",
        "attempts",
        "next_try",
        "error",
    )
    list_display_links = ("row_id",)
    search_fields = ("event_id",)
    search_help_text = _("event id, row id, key or request id, exact")
    change_form_outer_before_template = "outbox/row_story.html"
    change_form_outer_after_template = "outbox/row_neighbours.html"
    fieldsets = (
        (
            _("Where it stands"),
            {"fields": (("state", "age"), ("attempts", "next_try"), ("claim", "lease_until"), ("updated_at", "shard"))},
        ),
        (_("What it is"), {"fields": (("event_id", "biz_type"), ("key", "topic"), ("written_by", "traceparent"))}),
        (_("Last error"), {"fields": ("whole_error",)}),
        (_("Discarded"), {"fields": (("discarded_at", "discard_reason"),)}),
        (_("Payload"), {"fields": ("readable_payload",)}),
    )

    class Media:
        css: ClassVar = {"all": ("outbox/console.css",)}

    def get_queryset(self, request: HttpRequest) -> QuerySet[OutboxMessage]:
        # A payload may be 256 KB; it is loaded for the one row whose page shows it.
        queryset: QuerySet[OutboxMessage] = super().get_queryset(request)
        return queryset.defer("payload")

    def find(self, request: HttpRequest, queryset: QuerySet[OutboxMessage], term: str) -> QuerySet[OutboxMessage]:
        """Return the rows with this event id, row id, key or request: looks into four indexes, joined by row id."""
        ids = list(OutboxMessage.objects.filter(event_id=term).values_list("id", flat=True))
        if term.isascii() and term.isdigit() and len(term) < 19:
            ids.append(int(term))
        page = {"limit": self.list_per_page + 1, **self._place(request)}
        ids.extend(queries.list_key_ids(key=term, statuses=self._statuses(request), **page))
        ids.extend(queries.list_request_ids(request_id=term, **page))
        return queryset.filter(pk__in=ids)

    def _statuses(self, request: HttpRequest) -> list[str]:
        return statuses_of(self.fixed_status or request.GET.get("status", ""))

    def _place(self, request: HttpRequest) -> dict[str, int]:
        is_descending = self.get_keyset(request)[0].startswith("-")
        for name, goes_down in ((AFTER, is_descending), (BEFORE, not is_descending)):
            cursor = request.GET.get(name, "")
            if cursor.isascii() and cursor.isdigit():
                return {"older_than" if goes_down else "newer_than": int(cursor)}
        return {} if is_descending else {"newer_than": 0}

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        row = self.get_object(request, object_id) if self.has_view_permission(request) else None
        page = row_page(row, request=request, now=database_now()) if row is not None else {}
        response: HttpResponse = super().change_view(request, object_id, form_url, {**(extra_context or {}), **page})
        return response

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        own = ("state", "age", "attempts", "next_try", "claim", "key", "written_by", "whole_error", "readable_payload")
        return tuple(_field(name, request) for name in own)

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        discarded = obj is not None and obj.discarded_at is not None
        return [
            (name, {"fields": tuple(_field(field, request) for field in options["fields"])})
            for name, options in self.fieldsets
            if discarded or "discard_reason" not in str(options["fields"])
        ]

    def get_list_display(self, request: HttpRequest) -> tuple[str, ...]:
        return tuple(_field(name, request) for name in self.list_display)

    @column(description=_("row"))
    def row_id(self, row: OutboxMessage) -> str:
        return f"#{row.pk}"

    @column(description=_("state"))
    def state(self, row: OutboxMessage) -> str:
        name = words.state_of(row, now=database_now())
        return coloured_label(words.STATES[name], words.STATE_COLOURS[name])

    @column(description=_("age"))
    def age(self, row: OutboxMessage) -> SafeString:
        return one_line(words.age_of(row, now=database_now()))

    @column(description=_("attempts"))
    def attempts(self, row: OutboxMessage) -> SafeString:
        return one_line(f"{row.retry_count} / {row.max_retry}")

    @column(description=_("next try"))
    def next_try(self, row: OutboxMessage) -> SafeString:
        return one_line(words.next_try_of(row, now=database_now()) or "-")

    @column(description=_("last error"))
    def error(self, row: OutboxMessage) -> SafeString:
        error = words.error_excerpt(row, is_whole=True)
        return format_html('<span class="block" style="min-width:16rem">{}</span>', error or "-")

    @column(description=_("last error"))
    def error_kind(self, row: OutboxMessage) -> str:
        return words.error_excerpt(row, is_whole=False) or "-"

    @column(description=_("key"))
    def short_key(self, row: OutboxMessage) -> SafeString:
        key = row.message_key
        return link(words.key_url(key), one_line(key, short=key if len(key) <= 16 else key[:13] + "…"))

    @column(description=_("claimed by"))
    def claim(self, row: OutboxMessage) -> str:
        return row.claim_token or "-"

    @column(description=_("key"))
    def key(self, row: OutboxMessage) -> SafeString:
        business_url = words.business_url(row)
        named = format_html(" · {}", link(business_url, _("open what it names"))) if business_url else ""
        return format_html("{} · {}{}", row.message_key, link(words.key_url(row.message_key), _("its page")), named)

    @column(description=_("request"))
    def written_by(self, row: OutboxMessage) -> SafeString | str:
        return link(words.search_url(row.request_id), row.request_id) if row.request_id else "-"

    @column(description=_("last error"))
    def whole_error(self, row: OutboxMessage) -> SafeString | str:
        return words.preformatted(row.last_error) if row.last_error else "-"

    @column(description=_("payload"))
    def readable_payload(self, row: OutboxMessage) -> SafeString:
        return words.readable_payload(row.payload)

    @column(description=_("payload"))
    def masked_payload(self, row: OutboxMessage) -> str:
        return str(_("Hidden: reading payloads needs the permission “%(name)s”.") % {"name": words.VIEW_PAYLOAD})


# What stands in the place of a field that shows what an event holds, or that quotes it as errors do.
_MASKED = {"readable_payload": "masked_payload", "whole_error": "error_kind", "error": "error_kind"}


def _field(name: Any, request: HttpRequest) -> Any:
    return name if words.may_read_payload(request) else _MASKED.get(name, name)


@admin.register(OutboxMessage)
class OutboxMessageAdmin(OutboxRowAdmin):
    """All rows, newest first; in some states in the order of the index that holds them."""

    keyset = ("-id",)
    list_filter = (StateFilter, EventTypeFilter)

    def get_keyset(self, request: HttpRequest) -> tuple[str, ...]:
        state = "" if request.GET.get("q") else request.GET.get("status", "")
        chosen = keyset_of(state=state, event_type=request.GET.get("event_type", ""))
        return chosen or super().get_keyset(request)

    def get_urls(self) -> list[URLPattern]:
        page = path("key/", self.admin_site.admin_view(self.key_page), name="outbox_key")
        return [page, *super().get_urls()]

    def key_page(self, request: HttpRequest) -> HttpResponse:
        """Show the events of one key in their order, and what the key waits for."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "media": self.media,
            **key_page(request=request, now=database_now()),
        }
        return TemplateResponse(request, "outbox/key.html", context)
