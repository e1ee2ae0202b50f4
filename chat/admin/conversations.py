"""Conversations, newest first, each with its latest runs and messages."""

from collections.abc import Iterable
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.urls import URLPattern, path, reverse
from django.utils.timezone import localtime
from django.utils.translation import gettext_lazy as _

from chat.admin.private_text import PrivateTextAdmin, find_user_ids, preformatted, pretty_json
from chat.admin.runs import RUN_COLOURS, RUN_STATES, turn_of
from chat.admin.timeline import timeline_table
from chat.contracts import ChatStatus
from chat.models import AgentChat, AgentTimelineEvent, ChatHistory, ChatRun
from smartflow.api.admin_table import Table, link
from smartflow.api.keyset_admin import coloured_label, column, one_line
from smartflow.kernel.ids import is_uuid

NEWEST, NEWEST_ENTRIES = 20, 50
STATUSES: dict[str, Any] = {ChatStatus.ACTIVE: _("active"), ChatStatus.ARCHIVED: _("archived"), "deleted": _("deleted")}
STATUS_COLOURS: dict[str, str] = {ChatStatus.ACTIVE: "success", ChatStatus.ARCHIVED: "default", "deleted": "danger"}


@admin.register(AgentChat)
class AgentChatAdmin(PrivateTextAdmin):
    """Found by chat id (uk_chat_id), or by their user (idx_user_status)."""

    keyset = ("-id",)
    private_fields = ("system_prompt", "compaction_summary")
    list_display = (
        "one_line_id",
        "user",
        "title_start",
        "state",
        "message_count",
        "tokens_total",
        "last_message_at",
        "created_at",
    )
    search_fields = ("chat_id",)
    search_help_text = _("conversation id, user name or user id, exact")
    change_form_outer_after_template = "chat/conversation_activity.html"
    public_fieldsets = (
        (_("Conversation"), {"fields": (("chat_id", "user"), ("title", "state"), ("model", "turn_count"))}),
        (_("Counters"), {"fields": (("message_count", "tokens_total"), "last_message_at")}),
        (_("Memory"), {"fields": (("compaction_watermark", "timeline_seq"), "shown_context_stats")}),
        (_("Title"), {"fields": (("title_state", "title_attempts"),)}),
        (_("When"), {"fields": (("created_at", "updated_at"), "deleted_at")}),
    )

    def get_urls(self) -> list[URLPattern]:
        # The name by which the outbox's pages find what a key of a `chat.` event names.
        link = path("by-chat-id/<str:chat_id>/", self.admin_site.admin_view(self.by_chat_id), name="outbox_key_chat")
        return [link, *super().get_urls()]

    def by_chat_id(self, request: HttpRequest, chat_id: str) -> HttpResponse:
        """Lead from a conversation's public id to its page."""
        chat = get_object_or_404(AgentChat.objects.only("pk"), chat_id=chat_id)
        return HttpResponseRedirect(reverse("admin:chat_agentchat_change", args=[chat.pk]))

    def find(self, request: HttpRequest, queryset: QuerySet[AgentChat], term: str) -> QuerySet[AgentChat]:
        return queryset.filter(chat_id=term) if is_uuid(term) else queryset.filter(user_id__in=find_user_ids(term))

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        chat = self.get_object(request, object_id) if self.has_view_permission(request) else None
        activity = _activity_of(request, chat.chat_id) if chat is not None else {}
        response: HttpResponse = super().change_view(
            request, object_id, form_url, {**(extra_context or {}), "chat": chat, **activity}
        )
        return response

    @column(description=_("title"))
    def title_start(self, chat: AgentChat) -> str:
        title = chat.title or "-"
        return title if len(title) <= 40 else title[:40] + "…"

    @column(description=_("status"))
    def state(self, chat: AgentChat) -> str:
        name = "deleted" if chat.deleted_at else chat.status
        return coloured_label(STATUSES[name], STATUS_COLOURS[name])

    @column(description=_("conversation"))
    def one_line_id(self, chat: AgentChat) -> str:
        return one_line(chat.chat_id)

    @column(description=_("tokens of the last request"))
    def shown_context_stats(self, chat: AgentChat) -> str:
        return pretty_json(chat.context_token_stats)

    @column(description=_("state"))
    def title_state(self, chat: AgentChat) -> str:
        if chat.title_due_at:
            return str(_("due since %(time)s") % {"time": f"{localtime(chat.title_due_at):%Y-%m-%d %H:%M:%S}"})
        return str(_("has one") if (chat.title or "").strip() else _("none, and none is being made"))

    @column(description=_("summary of the older part"))
    def whole_compaction_summary(self, chat: AgentChat) -> str:
        return preformatted(chat.compaction_summary)

    @column(description=_("system prompt"))
    def whole_system_prompt(self, chat: AgentChat) -> str:
        return preformatted(chat.system_prompt)


def _activity_of(request: HttpRequest, chat_id: str) -> dict[str, Any]:
    runs = ChatRun.objects.filter(chat__chat_id=chat_id).defer("input_text", "output_text", "output_events")
    runs = runs.order_by("-turn_no", "-variant_no")[:NEWEST]
    entries = AgentTimelineEvent.objects.filter(chat__chat_id=chat_id).order_by("-seq")[:NEWEST_ENTRIES]
    histories = ChatHistory.objects.filter(chat__chat_id=chat_id).defer("message_content").order_by("-id")[:NEWEST]
    return {
        "runs": _runs_table(runs),
        "histories": _histories_table(histories),
        "timeline": timeline_table(request, entries),
    }


def _runs_table(runs: Iterable[ChatRun]) -> Table:
    heads = (_("turn"), _("kind"), _("state"), _("model"), _("tokens"), _("error"), _("began"))
    rows = (
        (
            link(reverse("admin:chat_chatrun_change", args=[run.pk]), turn_of(run)),
            run.kind,
            coloured_label(RUN_STATES[run.state], RUN_COLOURS.get(run.state, "default")),
            run.model,
            run.total_tokens,
            run.error_code or "-",
            one_line(f"{localtime(run.created_at):%Y-%m-%d %H:%M:%S}"),
        )
        for run in runs
    )
    return Table.of(heads, rows, empty=_("None yet."))


def _histories_table(histories: Iterable[ChatHistory]) -> Table:
    heads = (_("message"), _("role"), _("tokens"), _("written"))
    rows = (
        (
            link(reverse("admin:chat_chathistory_change", args=[message.pk]), f"#{message.pk}"),
            message.role,
            message.tokens_consumed,
            one_line(f"{localtime(message.created_at):%Y-%m-%d %H:%M:%S}"),
        )
        for message in histories
    )
    return Table.of(heads, rows, empty=_("None yet."))
