"""Messages as the handler wrote them, newest first."""

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils.http import urlencode
from django.utils.translation import gettext_lazy as _

from chat.admin.private_text import PrivateTextAdmin, find_user_ids, preformatted
from chat.models import ChatHistory
from smartflow.api.keyset_admin import column, short_id
from smartflow.kernel.ids import is_uuid


@admin.register(ChatHistory)
class ChatHistoryAdmin(PrivateTextAdmin):
    """Found by conversation (idx_chat_id), by event (uk_history_source_event) or by user (idx_user_chat)."""

    keyset = ("-id",)
    private_fields = ("message_content",)
    excerpt_field = "message_content"
    list_display = ("id", "role", "user", "short_chat_id", "tokens_consumed", "created_at")
    search_fields = ("source_event_id",)
    search_help_text = _("conversation id, event id, user name or user id, exact")
    public_fieldsets = (
        (_("Message"), {"fields": (("id", "role"), ("user", "chat_id"), ("tokens_consumed", "created_at"))}),
        (_("Where it came from"), {"fields": (("source_event_id", "run_id"),)}),
    )

    def get_urls(self) -> list[URLPattern]:
        # The name by which the outbox's pages find what handling a `chat.` event made.
        view = self.admin_site.admin_view(self.by_event_id)
        return [path("by-event-id/<str:event_id>/", view, name="outbox_event_chat"), *super().get_urls()]

    def by_event_id(self, request: HttpRequest, event_id: str) -> HttpResponse:
        """Lead from an event to the message that its handler wrote, or to a search that finds none."""
        message = ChatHistory.objects.only("pk").filter(source_event_id=event_id).first()
        if message is None:
            return HttpResponseRedirect(f"{reverse('admin:chat_chathistory_changelist')}?{urlencode({'q': event_id})}")
        return HttpResponseRedirect(reverse("admin:chat_chathistory_change", args=[message.pk]))

    def find(self, request: HttpRequest, queryset: QuerySet[ChatHistory], term: str) -> QuerySet[ChatHistory]:
        if ChatHistory.objects.filter(source_event_id=term).exists():
            return queryset.filter(source_event_id=term)
        return (
            queryset.filter(chat__chat_id=term) if is_uuid(term) else queryset.filter(user_id__in=find_user_ids(term))
        )

    @column(description=_("conversation"))
    def short_chat_id(self, message: ChatHistory) -> str:
        return short_id(message.chat_id)

    @column(description=_("text"))
    def whole_message_content(self, message: ChatHistory) -> str:
        return preformatted(message.message_content)
