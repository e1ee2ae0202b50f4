"""States that the assistant left after its runs, newest first."""

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from chat.admin.private_text import PrivateTextAdmin, find_user_ids, preformatted
from chat.models import AgentStateSnapshot
from smartflow.api.keyset_admin import column, short_id
from smartflow.kernel.ids import is_uuid


@admin.register(AgentStateSnapshot)
class AgentStateSnapshotAdmin(PrivateTextAdmin):
    """Found by conversation (uk_snapshot_conversation) or by user."""

    keyset = ("-id",)
    private_fields = ("snapshot_json",)
    list_display = ("id", "short_chat_id", "user", "phase", "revision", "updated_at")
    search_fields = ("conversation_id",)
    search_help_text = _("conversation id, user name or user id, exact")
    public_fieldsets = (
        (_("State"), {"fields": (("conversation_id", "user"), ("phase", "revision"), ("created_at", "updated_at"))}),
    )

    def find(
        self, request: HttpRequest, queryset: QuerySet[AgentStateSnapshot], term: str
    ) -> QuerySet[AgentStateSnapshot]:
        return (
            queryset.filter(conversation_id=term) if is_uuid(term) else queryset.filter(user_id__in=find_user_ids(term))
        )

    @column(description=_("conversation"))
    def short_chat_id(self, snapshot: AgentStateSnapshot) -> str:
        return short_id(snapshot.conversation_id)

    @column(description=_("state"))
    def whole_snapshot_json(self, snapshot: AgentStateSnapshot) -> str:
        return preformatted(snapshot.snapshot_json)
