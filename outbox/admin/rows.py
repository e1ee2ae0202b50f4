"""The list of all rows and the page of one; nothing here changes a row."""

from typing import Any
from urllib.parse import urlencode

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from outbox import queries
from outbox.admin import display as words
from outbox.admin.filters import EventTypeFilter, StatusFilter
from outbox.models import OutboxMessage, Status
from smartflow.api.keyset_admin import AFTER, BEFORE, ReadOnlyKeysetAdmin, coloured_label, column, one_line
from smartflow.kernel.clock import utc_now

NEIGHBOURS = 10
VIEW_PAYLOAD = "outbox.view_payload"


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
    search_help_text = _("event id, key or row id, exact")
    change_form_outer_after_template = "outbox/row_neighbours.html"
    fieldsets = (
        (_("Where it stands"), {"fields": (("state", "age"), ("attempts", "next_try"), ("claim", "lease_until"))}),
        (_("What it is"), {"fields": (("event_id", "biz_type"), ("key", "topic"), "request_id")}),
        (_("When"), {"fields": (("created_at", "updated_at"), ("published_at", "consumed_at"), "next_retry_at")}),
        (_("Last error"), {"fields": ("whole_error",)}),
        (_("Discarded"), {"fields": (("discarded_at", "discard_reason"),)}),
        (_("Payload"), {"fields": ("readable_payload",)}),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[OutboxMessage]:
        # A payload may be 256 KB; it is loaded for the one row whose page shows it.
        queryset: QuerySet[OutboxMessage] = super().get_queryset(request)
        return queryset.defer("payload")

    def find(self, request: HttpRequest, queryset: QuerySet[OutboxMessage], term: str) -> QuerySet[OutboxMessage]:
        """Return the rows with this event id, row id or key: three looks into three indexes, joined by row id."""
        ids = list(OutboxMessage.objects.filter(event_id=term).values_list("id", flat=True))
        if term.isascii() and term.isdigit() and len(term) < 19:
            ids.append(int(term))
        ids.extend(
            queries.list_key_ids(
                key=term, statuses=self._statuses(request), limit=self.list_per_page + 1, **self._place(request)
            )
        )
        return queryset.filter(pk__in=ids)

    def _statuses(self, request: HttpRequest) -> list[str]:
        chosen = self.fixed_status or request.GET.get("status", "")
        return [chosen] if chosen in Status.values else list(Status.values)

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
        neighbours = []
        if row is not None:
            now = utc_now()
            rows = queries.list_neighbours(key=row.message_key, message_id=row.pk, limit=NEIGHBOURS)
            neighbours = [_as_line(neighbour, now=now, is_current=neighbour.pk == row.pk) for neighbour in rows]
        response: HttpResponse = super().change_view(
            request, object_id, form_url, {**(extra_context or {}), "neighbours": neighbours, "row": row}
        )
        return response

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        own = ("state", "age", "attempts", "next_try", "claim", "key", "whole_error", "readable_payload")
        shows_payload = request.user.has_perm(VIEW_PAYLOAD)
        return (*(name for name in own if name != "readable_payload"), _payload_field(shows_payload))

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        payload = _payload_field(request.user.has_perm(VIEW_PAYLOAD))
        discarded = obj is not None and obj.discarded_at is not None
        return [
            (name, {"fields": (payload,)} if options["fields"] == ("readable_payload",) else options)
            for name, options in self.fieldsets
            if discarded or "discard_reason" not in str(options["fields"])
        ]

    @column(description=_("row"))
    def row_id(self, row: OutboxMessage) -> str:
        return f"#{row.pk}"

    @column(description=_("state"))
    def state(self, row: OutboxMessage) -> str:
        name = words.state_of(row, now=utc_now())
        return coloured_label(words.STATES[name], words.STATE_COLOURS[name])

    @column(description=_("age"))
    def age(self, row: OutboxMessage) -> SafeString:
        return one_line(words.age_of(row, now=utc_now()))

    @column(description=_("attempts"))
    def attempts(self, row: OutboxMessage) -> SafeString:
        return one_line(f"{row.retry_count} / {row.max_retry}")

    @column(description=_("next try"))
    def next_try(self, row: OutboxMessage) -> SafeString:
        return one_line(words.next_try_of(row, now=utc_now()) or "-")

    @column(description=_("last error"))
    def error(self, row: OutboxMessage) -> SafeString:
        return format_html('<span class="block" style="min-width:16rem">{}</span>', words.error_excerpt(row) or "-")

    @column(description=_("key"))
    def short_key(self, row: OutboxMessage) -> SafeString:
        key = row.message_key
        return one_line(key, short=key if len(key) <= 16 else key[:13] + "…")

    @column(description=_("claimed by"))
    def claim(self, row: OutboxMessage) -> str:
        return row.claim_token or "-"

    @column(description=_("key"))
    def key(self, row: OutboxMessage) -> SafeString:
        rows_url = f"{reverse('admin:outbox_outboxmessage_changelist')}?{urlencode({'q': row.message_key})}"
        business_url = words.business_url(row)
        if business_url:
            return format_html(
                '{} · <a class="text-primary-600" href="{}">{}</a> · <a class="text-primary-600" href="{}">{}</a>',
                row.message_key,
                rows_url,
                _("all its rows"),
                business_url,
                _("open what it names"),
            )
        return format_html(
            '{} · <a class="text-primary-600" href="{}">{}</a>', row.message_key, rows_url, _("all its rows")
        )

    @column(description=_("last error"))
    def whole_error(self, row: OutboxMessage) -> SafeString | str:
        return words.preformatted(row.last_error) if row.last_error else "-"

    @column(description=_("payload"))
    def readable_payload(self, row: OutboxMessage) -> SafeString:
        return words.readable_payload(row.payload)

    @column(description=_("payload"))
    def masked_payload(self, row: OutboxMessage) -> str:
        return str(_("Hidden: reading payloads needs the permission “%(name)s”.") % {"name": VIEW_PAYLOAD})


def _payload_field(is_shown: bool) -> str:
    return "readable_payload" if is_shown else "masked_payload"


def _as_line(row: OutboxMessage, *, now: Any, is_current: bool) -> dict[str, Any]:
    name = words.state_of(row, now=now)
    return {
        "row": row,
        "state": words.STATES[name],
        "colour": words.STATE_COLOURS[name],
        "age": words.age_of(row, now=now),
        "is_current": is_current,
    }


@admin.register(OutboxMessage)
class OutboxMessageAdmin(OutboxRowAdmin):
    """All rows, newest first."""

    keyset = ("-id",)
    list_filter = (StatusFilter, EventTypeFilter)
