"""Changes of the long-term memory and the switches, as operators see them; nothing here changes a row."""

from typing import Any

from django.contrib import admin
from django.contrib.auth import get_user_model
from django.db.models import Prefetch, QuerySet
from django.http import HttpRequest
from django.utils.html import format_html_join
from django.utils.safestring import SafeString
from django.utils.timezone import localtime
from django.utils.translation import gettext_lazy as _

from chat.admin.private_text import VIEW_TEXT, PrivateTextAdmin, find_user_ids, preformatted, pretty_json
from chat.memory_contracts import AuditAction, AuthorKind
from chat.memory_models import MemoryAuditLog, MemorySettings
from smartflow.api.admin_table import Table
from smartflow.api.keyset_admin import ReadOnlyKeysetAdmin, column, one_line

CHANGES_SHOWN = 50
ACTIONS: dict[str, Any] = {
    AuditAction.CREATE: _("created"),
    AuditAction.UPDATE: _("changed"),
    AuditAction.DELETE: _("deleted"),
    AuditAction.RESTORE: _("restored"),
    AuditAction.SETTINGS: _("switches turned"),
}
AUTHORS: dict[str, Any] = {
    AuthorKind.USER: _("the user"),
    AuthorKind.SYSTEM: _("the assistant"),
    AuthorKind.ADMIN: _("operator %(id)s"),
}


class PrivateMemoryAdmin(PrivateTextAdmin):
    """
    Pages of rows with their users' names.

    Not joined: MariaDB then begins with the users, and sorts every row there is to show fifty.
    """

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return with_users(super().get_queryset(request).select_related(None).defer(None).defer(*self.private_fields))

    list_select_related = ()


@admin.register(MemoryAuditLog)
class MemoryAuditLogAdmin(PrivateMemoryAdmin):
    """All changes, newest first; found by item (idx_memory_audit_item) or by user (idx_memory_audit_user)."""

    keyset = ("-id",)
    private_fields = ("before", "after", "reason")
    list_display = ("id", "created_at", "user", "item_number", "action_label", "author")
    search_fields = ("id",)
    search_help_text = _("#memory item id, user name or user id, exact")
    public_fieldsets = (
        (
            _("Change"),
            {"fields": (("user", "item_number"), ("action_label", "author"), ("changed_fields", "created_at"))},
        ),
    )

    def find(self, request: HttpRequest, queryset: QuerySet[MemoryAuditLog], term: str) -> QuerySet[MemoryAuditLog]:
        if term.startswith("#"):
            return queryset.filter(item_id__in=row_ids(term[1:]))
        return queryset.filter(user_id__in=find_user_ids(term))

    def get_keyset(self, request: HttpRequest) -> tuple[str, ...]:
        """Return the order that the index of the search holds."""
        term = request.GET.get("q", "").strip()
        if term:
            return ("-item_id", "-id") if term.startswith("#") else ("-user_id", "-id")
        return super().get_keyset(request)

    @column(description=_("memory item"))
    def item_number(self, line: MemoryAuditLog) -> str:
        return f"#{line.item_id}" if line.item_id else "-"

    @column(description=_("change"))
    def action_label(self, line: MemoryAuditLog) -> str:
        return str(ACTIONS[line.action])

    @column(description=_("by"))
    def author(self, line: MemoryAuditLog) -> str:
        return author_of(line)

    @column(description=_("fields"))
    def changed_fields(self, line: MemoryAuditLog) -> str:
        return ", ".join(_differing(line)) or "-"

    @column(description=_("before"))
    def whole_before(self, line: MemoryAuditLog) -> str:
        return pretty_json(line.before)

    @column(description=_("after"))
    def whole_after(self, line: MemoryAuditLog) -> str:
        return pretty_json(line.after)

    @column(description=_("reason"))
    def whole_reason(self, line: MemoryAuditLog) -> str:
        return preformatted(line.reason)


@admin.register(MemorySettings)
class MemorySettingsAdmin(ReadOnlyKeysetAdmin):
    """The switches of those who ever turned one; found by user."""

    keyset = ("-user_id",)
    list_display = (
        *("user", "memory_enabled", "implicit_memory_enabled", "sensitive_memory_enabled"),
        "updated_at",
    )
    list_select_related = ()
    search_fields = ("user_id",)
    search_help_text = _("user name or user id, exact")

    def get_queryset(self, request: HttpRequest) -> QuerySet[MemorySettings]:
        return with_users(super().get_queryset(request))

    def find(self, request: HttpRequest, queryset: QuerySet[MemorySettings], term: str) -> QuerySet[MemorySettings]:
        return queryset.filter(pk__in=find_user_ids(term))


def with_users(queryset: QuerySet[Any]) -> QuerySet[Any]:
    """Return the rows with their users' names, which a second query brings."""
    return queryset.prefetch_related(Prefetch("user", get_user_model()._default_manager.only("username")))


def row_ids(term: str) -> list[int]:
    """Return the number that the term is, if it is one."""
    return [int(term)] if term.isascii() and term.isdigit() and len(term) < 19 else []


def author_of(line: MemoryAuditLog) -> str:
    """Return who made a change, in words."""
    return str(AUTHORS[line.author_kind]) % {"id": f"#{line.author_id}"}


def changes_table(*, request: HttpRequest, item_id: int) -> Table:
    """Return who changed an item, newest first; what it said stands in it only for those who may read it."""
    may_read = request.user.has_perm(VIEW_TEXT)
    lines = MemoryAuditLog.objects.filter(item_id=item_id).order_by("-id")[:CHANGES_SHOWN]
    rows = (
        (
            one_line(f"{localtime(line.created_at):%Y-%m-%d %H:%M:%S}"),
            ACTIONS[line.action],
            author_of(line),
            _told(line, may_read),
            line.reason or "-" if may_read or line.author_kind == AuthorKind.ADMIN else _("hidden"),
        )
        for line in lines
    )
    heads = (_("when"), _("change"), _("by"), _("fields"), _("reason"))
    return Table.of(heads, rows, empty=_("None yet."))


def _told(line: MemoryAuditLog, may_read: bool) -> SafeString | str:
    names = _differing(line)
    if not may_read or line.before is None:
        return ", ".join(names)
    before = line.before
    pairs = ((name, str(before.get(name)), str(line.after[name])) for name in names)
    return format_html_join("", '<div class="break-words">{}: {} → {}</div>', pairs)


def _differing(line: MemoryAuditLog) -> list[str]:
    before = line.before or {}
    return sorted(name for name, value in line.after.items() if before.get(name) != value)
