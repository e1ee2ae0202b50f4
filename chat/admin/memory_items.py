"""Items of the long-term memory, newest first, each with who changed it.

What is remembered is private. Operators delete items and bring them back, each time with a reason; they write nothing.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, cast

from django import forms
from django.contrib import admin, messages
from django.contrib.admin import SimpleListFilter
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.admin.options import ModelAdmin
from django.contrib.contenttypes.models import ContentType
from django.db import transaction
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext
from unfold.widgets import UnfoldAdminTextareaWidget

from chat import operations
from chat.admin.memory_changes import PrivateMemoryAdmin, changes_table, row_ids
from chat.admin.private_text import find_user_ids, preformatted
from chat.memory.items import MemoryFieldInvalid, checked_reason
from chat.memory_contracts import REASON_MAX_CHARACTERS, Author, AuthorKind, MemoryStatus, MemoryType, MemoryView
from chat.memory_models import MemoryItem
from smartflow.api.admin_table import Table
from smartflow.api.index_hints import is_exactly, read_by
from smartflow.api.keyset_admin import coloured_label, column, operator_action
from smartflow.kernel.clock import utc_now
from smartflow.kernel.errors import DomainError

STATUSES: dict[str, Any] = {
    MemoryStatus.ACTIVE: _("active"),
    MemoryStatus.ARCHIVED: _("archived"),
    MemoryStatus.DELETED: _("deleted"),
}
COLOURS: dict[str, str] = {
    MemoryStatus.ACTIVE: "success",
    MemoryStatus.ARCHIVED: "default",
    MemoryStatus.DELETED: "danger",
}
TYPES: dict[str, Any] = {
    MemoryType.PREFERENCE: _("preference"),
    MemoryType.CONSTRAINT: _("constraint"),
    MemoryType.FACT: _("fact"),
}


@dataclass(frozen=True, kw_only=True)
class Verb:
    """What an operator does to items, and the words for it. `done` is the log's."""

    action: str
    operation: Callable[..., MemoryView]
    applies_to: tuple[str, ...]
    title: Any
    button: Any
    done: str


DELETE = Verb(
    action="delete_items",
    operation=operations.delete_memory_item,
    applies_to=(MemoryStatus.ACTIVE, MemoryStatus.ARCHIVED),
    title=_("Delete memory items"),
    button=_("Delete"),
    done="deleted",
)
RESTORE = Verb(
    action="restore_items",
    operation=operations.restore_memory_item,
    applies_to=(MemoryStatus.ARCHIVED, MemoryStatus.DELETED),
    title=_("Restore memory items"),
    button=_("Restore"),
    done="restored",
)


class ReasonForm(forms.Form):
    """Why: it is what the next operator reads."""

    reason = forms.CharField(
        label=_("Reason"),
        max_length=REASON_MAX_CHARACTERS,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 3, "autofocus": True}),
        error_messages={"required": _("Say why: it is what the next operator reads.")},
    )

    def clean_reason(self) -> str:
        """Return the reason in one line, as the audit keeps it."""
        try:
            return checked_reason(reason=" ".join(self.cleaned_data["reason"].split()))
        except MemoryFieldInvalid as error:
            raise forms.ValidationError(_(error.fields["reason"])) from error


class StatusFilter(SimpleListFilter):
    """One status, as idx_memory_status holds them."""

    title = _("status")
    parameter_name = "status"

    def lookups(self, request: HttpRequest, model_admin: "ModelAdmin[Any]") -> list[tuple[str, Any]]:
        return [(str(status), title) for status, title in STATUSES.items()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[MemoryItem]) -> QuerySet[MemoryItem]:
        return queryset.filter(is_exactly("status", self.value())) if self.value() in STATUSES else queryset


class TypeFilter(SimpleListFilter):
    """One type, as idx_memory_type and, with a status, idx_memory_status_type hold them."""

    title = _("type")
    parameter_name = "type"

    def lookups(self, request: HttpRequest, model_admin: "ModelAdmin[Any]") -> list[tuple[str, Any]]:
        return [(str(name), title) for name, title in TYPES.items()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[MemoryItem]) -> QuerySet[MemoryItem]:
        return queryset.filter(is_exactly("memory_type", self.value())) if self.value() in TYPES else queryset


@admin.register(MemoryItem)
class MemoryItemAdmin(PrivateMemoryAdmin):
    """Found by item id, or by their user (idx_memory_user_list)."""

    keyset = ("-id",)
    private_fields = ("title", "content")
    excerpt_field = "title"
    list_display = ("id", "user", "type_label", "status_label", "is_explicit", "sensitivity_level", "created_at")
    list_filter = (StatusFilter, TypeFilter)
    search_fields = ("id",)
    search_help_text = _("#memory item id, user name or user id, exact")
    actions = (DELETE.action, RESTORE.action)
    change_form_outer_after_template = "chat/memory_changes.html"
    public_fieldsets = (
        (
            _("Memory item"),
            {
                "fields": (
                    ("user", "conversation_id"),
                    ("type_label", "status_label"),
                    ("is_explicit", "sensitivity_level"),
                    ("confidence", "importance"),
                )
            },
        ),
        (_("Source"), {"fields": (("assistant_id", "run_id"),)}),
        (_("When"), {"fields": (("created_at", "updated_at"), "ttl_at")}),
    )

    def get_keyset(self, request: HttpRequest) -> tuple[str, ...]:
        """Return the order that the index of the search or the filter holds."""
        if request.GET.get("q", "").strip():
            return ("-user_id", "-created_at", "-id")
        status = ("-status",) if request.GET.get(StatusFilter.parameter_name) in STATUSES else ()
        memory_type = ("-memory_type",) if request.GET.get(TypeFilter.parameter_name) in TYPES else ()
        return (*status, *memory_type, *super().get_keyset(request))

    def find(self, request: HttpRequest, queryset: QuerySet[MemoryItem], term: str) -> QuerySet[MemoryItem]:
        if term.startswith("#"):
            return queryset.filter(pk__in=row_ids(term[1:]))
        ids = find_user_ids(term)
        own = is_exactly("user_id", ids[0]) if len(ids) == 1 else Q(user_id__in=ids)
        return read_by(queryset.filter(own), index="idx_memory_user_list")

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        ids = row_ids(object_id) if self.has_view_permission(request) else []
        shown = {"item_id": ids[0], "changes": changes_table(request=request, item_id=ids[0])} if ids else {}
        response: HttpResponse = super().change_view(request, object_id, form_url, {**(extra_context or {}), **shown})
        return response

    def has_remove_permission(self, request: HttpRequest) -> bool:
        """Tell whether the operator may delete items of users; they can be brought back."""
        return request.user.has_perm("chat.delete_memoryitem")

    def has_restore_permission(self, request: HttpRequest) -> bool:
        """Tell whether the operator may bring items of users back."""
        return request.user.has_perm("chat.change_memoryitem")

    @operator_action(description=_("Delete the items; they can be restored …"), permissions=["remove"])
    def delete_items(self, request: HttpRequest, queryset: QuerySet[MemoryItem]) -> HttpResponse | None:
        """Ask for the reason, then delete the ticked items as their users would."""
        return self._apply(request, DELETE, queryset)

    @operator_action(description=_("Restore the items …"), permissions=["restore"])
    def restore_items(self, request: HttpRequest, queryset: QuerySet[MemoryItem]) -> HttpResponse | None:
        """Ask for the reason, then bring the ticked items back as their users would."""
        return self._apply(request, RESTORE, queryset)

    def _apply(self, request: HttpRequest, verb: Verb, queryset: QuerySet[MemoryItem]) -> HttpResponse | None:
        items = list(queryset[: self.list_per_page])
        form = ReasonForm(request.POST if "reason" in request.POST else None)
        if not form.is_valid():
            return self._ask(request, verb, items, form)
        done = sum(
            _apply_to(request, verb, item, form.cleaned_data["reason"])
            for item in items
            if item.status in verb.applies_to
        )
        text = ngettext("Done: %(number)d memory item.", "Done: %(number)d memory items.", done) % {"number": done}
        self.message_user(request, text, messages.SUCCESS if done else messages.WARNING)
        return None

    def _ask(self, request: HttpRequest, verb: Verb, items: list[MemoryItem], form: ReasonForm) -> HttpResponse:
        context = {
            **self.admin_site.each_context(request),
            "title": verb.title,
            "opts": self.opts,
            "media": self.media,
            "verb": verb,
            "form": form,
            "items": _items_table(items),
            "ids": [item.pk for item in items],
            "checkbox_name": ACTION_CHECKBOX_NAME,
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, "chat/memory_reason.html", context)

    @column(description=_("type"))
    def type_label(self, item: MemoryItem) -> str:
        return str(TYPES[item.memory_type])

    @column(description=_("status"))
    def status_label(self, item: MemoryItem) -> str:
        return coloured_label(STATUSES[item.status], COLOURS[item.status])

    @column(description=_("title"))
    def whole_title(self, item: MemoryItem) -> str:
        return preformatted(item.title)

    @column(description=_("content"))
    def whole_content(self, item: MemoryItem) -> str:
        return preformatted(item.content)


def _apply_to(request: HttpRequest, verb: Verb, item: MemoryItem, reason: str) -> bool:
    """Do it to one item and write it into the log; False when the item went meanwhile."""
    by = Author(kind=AuthorKind.ADMIN, id=cast(int, request.user.pk), reason=reason)
    try:
        with transaction.atomic():
            verb.operation(user_id=item.user_id, item_id=item.pk, by=by, now=utc_now())
            LogEntry.objects.create(
                user_id=cast(int, request.user.pk),
                content_type=ContentType.objects.get_for_model(MemoryItem),
                object_id=str(item.pk),
                object_repr=f"{item._meta.verbose_name} {item.pk} of {item.user}"[:200],
                action_flag=CHANGE,
                change_message=f"{verb.done} by an operator. Reason: {reason}",
            )
    except DomainError:
        return False
    return True


def _items_table(items: Iterable[MemoryItem]) -> Table:
    rows = ((f"#{item.pk}", item.user, TYPES[item.memory_type], STATUSES[item.status]) for item in items)
    return Table.of((_("memory item"), _("user"), _("type"), _("status")), rows, empty=_("None."))
