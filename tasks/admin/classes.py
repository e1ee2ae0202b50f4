"""Task classes with their items; operators delete whole classes, and change nothing else."""

from typing import Any

from django.contrib import admin, messages
from django.contrib.admin import SimpleListFilter
from django.contrib.admin.options import ModelAdmin
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext
from unfold.admin import TabularInline

from smartflow.api.keyset_admin import ReadOnlyKeysetAdmin, column, operator_action
from smartflow.kernel.clock import utc_now
from smartflow.kernel.errors import DomainError
from tasks import operations
from tasks.admin.actors import find_user_ids, note_action, row_ids, with_users
from tasks.contracts import ClassMode
from tasks.models import TaskClass, TaskItem

MODES: dict[str, Any] = {ClassMode.AUTO: _("automatic"), ClassMode.MANUAL: _("by hand")}


class ModeFilter(SimpleListFilter):
    """One mode, as idx_task_class_mode holds it."""

    title = _("mode")
    parameter_name = "mode"

    def lookups(self, request: HttpRequest, model_admin: "ModelAdmin[Any]") -> list[tuple[str, Any]]:
        return [(str(mode), title) for mode, title in MODES.items()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[TaskClass]) -> QuerySet[TaskClass]:
        return queryset.filter(mode=self.value()) if self.value() in MODES else queryset


class TaskItemInline(TabularInline):  # type: ignore[misc]
    """The items of a class, in their order."""

    model = TaskItem
    fields = ("order", "content", "is_arranged", "embedded_time", "updated_at")
    readonly_fields = fields
    ordering = ("order",)
    extra = 0
    can_delete = False

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    @column(description=_("in the timetable"))
    def is_arranged(self, item: TaskItem) -> str:
        return str(_("yes") if item.embedded_time else _("no"))


@admin.register(TaskClass)
class TaskClassAdmin(ReadOnlyKeysetAdmin):
    """Found by class id, or by their user."""

    list_display = ("id", "user", "name", "shown_mode", "start_date", "end_date", "total_slots", "created_at")
    list_filter = (ModeFilter,)
    list_select_related = ()
    search_fields = ("id",)
    search_help_text = _("#task class id, user name or user id, exact")
    actions = ("delete_classes",)
    inlines = (TaskItemInline,)
    fieldsets = (
        (_("Task class"), {"fields": (("user", "name"), ("shown_mode", "strategy"), ("start_date", "end_date"))}),
        (
            _("Planning"),
            {
                "fields": (
                    ("subject_type", "difficulty_level", "cognitive_intensity"),
                    ("total_slots", "allow_filler_course"),
                    ("excluded_slots", "excluded_days_of_week"),
                )
            },
        ),
        (_("When"), {"fields": (("created_at", "updated_at"),)}),
    )
    readonly_fields = ("shown_mode",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[TaskClass]:
        return with_users(super().get_queryset(request))

    def find(self, request: HttpRequest, queryset: QuerySet[TaskClass], term: str) -> QuerySet[TaskClass]:
        if term.startswith("#"):
            return queryset.filter(pk__in=row_ids(term[1:]))
        return queryset.filter(user_id__in=find_user_ids(term))

    def has_remove_permission(self, request: HttpRequest) -> bool:
        """Tell whether the operator may delete task classes of users, for good."""
        return request.user.has_perm("tasks.delete_taskclass")

    @operator_action(description=_("Delete the task classes with their items, for good"), permissions=["remove"])
    def delete_classes(self, request: HttpRequest, queryset: QuerySet[TaskClass]) -> None:
        """Delete the ticked classes as their users would."""
        deleted = 0
        for row in list(queryset[: self.list_per_page]):
            try:
                with transaction.atomic():
                    operations.delete_class(user_id=row.user_id, task_class_id=row.pk, now=utc_now())
                    note_action(request, row, f"deleted by an operator: {row.name}")
            except DomainError:
                continue
            deleted += 1
        text = ngettext("%(number)d task class was deleted.", "%(number)d task classes were deleted.", deleted)
        self.message_user(request, text % {"number": deleted}, messages.SUCCESS if deleted else messages.WARNING)

    @column(description=_("mode"))
    def shown_mode(self, row: TaskClass) -> str:
        return str(MODES[row.mode])
