"""Timelines, newest entries first, and their table on the pages of conversations and runs."""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.db.models.functions import Substr
from django.http import HttpRequest
from django.urls import reverse
from django.utils.timezone import localtime
from django.utils.translation import gettext_lazy as _

from chat.admin.private_text import EXCERPT_LENGTH, VIEW_TEXT, PrivateTextAdmin, preformatted, pretty_json
from chat.models import AgentTimelineEvent, ChatRun
from smartflow.api.admin_table import Table, link
from smartflow.api.keyset_admin import column, one_line, short_id
from smartflow.kernel.ids import is_uuid


@admin.register(AgentTimelineEvent)
class AgentTimelineEventAdmin(PrivateTextAdmin):
    """Found by conversation or run (uk_timeline_seq)."""

    keyset = ("-id",)
    private_fields = ("content", "payload")
    excerpt_field = "content"
    list_display = ("id", "seq", "kind", "role", "user", "short_chat_id", "tokens_consumed", "created_at")
    search_fields = ("chat_id",)
    search_help_text = _("conversation id or run id, exact")
    public_fieldsets = (
        (_("Entry"), {"fields": (("chat_id", "seq"), ("kind", "role"), ("user", "run_id"))}),
        (_("When"), {"fields": (("tokens_consumed", "created_at"),)}),
    )

    def get_keyset(self, request: HttpRequest) -> tuple[str, ...]:
        # of one conversation the index has this order
        return ("-seq",) if is_uuid(request.GET.get("q", "").strip()) else super().get_keyset(request)

    def find(
        self, request: HttpRequest, queryset: QuerySet[AgentTimelineEvent], term: str
    ) -> QuerySet[AgentTimelineEvent]:
        if not is_uuid(term):
            return queryset.none()
        chat_id = ChatRun.objects.filter(pk=term).values_list("chat_id", flat=True).first()
        of_chat = queryset.filter(chat__chat_id=chat_id or term)
        return of_chat.filter(run_id=term) if chat_id else of_chat

    @column(description=_("conversation"))
    def short_chat_id(self, entry: AgentTimelineEvent) -> str:
        return short_id(entry.chat_id)

    @column(description=_("text"))
    def whole_content(self, entry: AgentTimelineEvent) -> str:
        return preformatted(entry.content)

    @column(description=_("payload"))
    def whole_payload(self, entry: AgentTimelineEvent) -> str:
        return pretty_json(entry.payload)


def timeline_table(request: HttpRequest, entries: QuerySet[AgentTimelineEvent]) -> Table:
    """Return entries as a table; what was said stands in it only for those who may read it."""
    heads = [_("seq"), _("kind"), _("role"), _("tokens"), _("written")]
    names = ["pk", "seq", "kind", "role", "tokens_consumed", "created_at"]
    if request.user.has_perm(VIEW_TEXT):
        heads.append(_("text"))
        names.append("text_start")
        entries = entries.annotate(text_start=Substr("content", 1, EXCERPT_LENGTH))
    return Table.of(heads, (_cells(*values) for values in entries.values_list(*names)), empty=_("None yet."))


def _cells(pk: int, seq: int, kind: str, role: str, *more: Any) -> list[object]:
    tokens, written, *text = more
    url = reverse("admin:chat_agenttimelineevent_change", args=[pk])
    return [link(url, seq), kind, role, tokens, one_line(f"{localtime(written):%Y-%m-%d %H:%M:%S}"), *text]
