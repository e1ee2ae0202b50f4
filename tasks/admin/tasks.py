"""Tasks of all users, the newest first; operators delete them and bring them back, and change nothing else."""

from typing import Any

from django.contrib import admin, messages
from django.contrib.admin import SimpleListFilter
from django.contrib.admin.options import ModelAdmin
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from smartflow.api.index_hints import read_by
from smartflow.api.keyset_admin import ReadOnlyKeysetAdmin, coloured_label, column, operator_action
from smartflow.kernel.clock import utc_now
from smartflow.kernel.errors import DomainError
from tasks import operations
from tasks.admin.actors import find_user_ids, note_action, row_ids, with_users
from tasks.models import Task
from tasks.urgency import effective_priority

OPEN, COMPLETED, DELETED = "open", "completed", "deleted"
STATES: dict[str, Any] = {OPEN: _("open"), COMPLETED: _("completed"), DELETED: _("deleted")}
COLOURS = {OPEN: "info", COMPLETED: "success", DELETED: "danger"}


class TaskStateFilter(SimpleListFilter):
    """One state at a time, as idx_task_state holds them."""

    title = _("state")
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: "ModelAdmin[Any]") -> list[tuple[str, Any]]:
        return list(STATES.items())

    def queryset(self, request: HttpRequest, queryset: QuerySet[Task]) -> QuerySet[Task]:
        state = self.value()
        if state == DELETED:
            return queryset.filter(deleted_at__isnull=False)
        if state in STATES:
            return queryset.filter(deleted_at__isnull=True, is_completed=state == COMPLETED)
        return queryset


@admin.register(Task)
class TaskAdmin(ReadOnlyKeysetAdmin):
    """Found by task id, or by their user (idx_task_user_list); deleted ones of a user with the filter."""

    list_display = ("id", "user", "title", "quadrant", "state", "deadline_at", "urgency_threshold_at", "created_at")
    list_filter = (TaskStateFilter,)
    list_select_related = ()
    search_fields = ("id",)
    search_help_text = _("#task id, user name or user id, exact")
    actions = ("delete_tasks", "restore_tasks")
    fieldsets = (
        (_("Task"), {"fields": (("user", "title"), ("quadrant", "priority"), ("state", "estimated_sections"))}),
        (
            _("When"),
            {
                "fields": (
                    ("deadline_at", "urgency_threshold_at"),
                    ("created_at", "updated_at"),
                    ("completed_at", "deleted_at"),
                )
            },
        ),
    )
    readonly_fields = ("quadrant", "state")

    def get_urls(self) -> list[URLPattern]:
        # The name by which the outbox's pages find what a key of a `task.` event names.
        link = path("by-key/<str:key>/", self.admin_site.admin_view(self.by_key), name="outbox_key_task")
        return [link, *super().get_urls()]

    def by_key(self, request: HttpRequest, key: str) -> HttpResponse:
        """Lead from an event's key to the page of the task class, or to the tasks of the user."""
        kind, _colon, number = key.partition(":")
        ids = row_ids(number)
        if kind == "task_class" and ids:
            return HttpResponseRedirect(reverse("admin:tasks_taskclass_change", args=ids))
        return HttpResponseRedirect(f"{reverse('admin:tasks_task_changelist')}?q={ids[0] if ids else ''}")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Task]:
        return with_users(super().get_queryset(request))

    def get_keyset(self, request: HttpRequest) -> tuple[str, ...]:
        """Return the order that the index of the search or the filter holds."""
        state, term = request.GET.get(TaskStateFilter.parameter_name), request.GET.get("q", "").strip()
        if term:
            return ("-user_id", "-created_at", "-id")
        if state == DELETED:
            return ("-deleted_at", "-is_completed", "-id")
        return super().get_keyset(request)

    def find(self, request: HttpRequest, queryset: QuerySet[Task], term: str) -> QuerySet[Task]:
        if term.startswith("#"):
            return queryset.filter(pk__in=row_ids(term[1:]))
        own = queryset.filter(user_id__in=find_user_ids(term))
        if request.GET.get(TaskStateFilter.parameter_name) == DELETED:
            return own
        # With a state MySQL 8 would come by idx_task_user_urgency, and sort all the user's tasks to show fifty.
        return read_by(own.filter(deleted_at=None), index="idx_task_user_list")

    def has_remove_permission(self, request: HttpRequest) -> bool:
        """Tell whether the operator may delete tasks of users; they can be brought back."""
        return request.user.has_perm("tasks.delete_task")

    def has_restore_permission(self, request: HttpRequest) -> bool:
        """Tell whether the operator may bring tasks of users back."""
        return request.user.has_perm("tasks.change_task")

    @operator_action(description=_("Delete the tasks; they can be restored for 30 days"), permissions=["remove"])
    def delete_tasks(self, request: HttpRequest, queryset: QuerySet[Task]) -> None:
        """Delete the ticked tasks as their users would."""
        deleted = 0
        for task in list(queryset.filter(deleted_at__isnull=True)[: self.list_per_page]):
            try:
                with transaction.atomic():
                    operations.delete_task(user_id=task.user_id, task_id=task.pk, now=utc_now())
                    note_action(request, task, "deleted by an operator")
            except DomainError:
                continue
            deleted += 1
        text = ngettext("%(number)d task was deleted.", "%(number)d tasks were deleted.", deleted)
        self.message_user(request, text % {"number": deleted}, messages.SUCCESS if deleted else messages.WARNING)

    @operator_action(description=_("Restore the tasks"), permissions=["restore"])
    def restore_tasks(self, request: HttpRequest, queryset: QuerySet[Task]) -> None:
        """Bring the ticked tasks back, as far as that is still possible."""
        restored = 0
        for task in list(queryset.filter(deleted_at__isnull=False)[: self.list_per_page]):
            try:
                with transaction.atomic():
                    operations.restore_task(user_id=task.user_id, task_id=task.pk, now=utc_now())
                    note_action(request, task, "restored by an operator")
            except DomainError:
                continue
            restored += 1
        text = ngettext("%(number)d task was restored.", "%(number)d tasks were restored.", restored)
        self.message_user(request, text % {"number": restored}, messages.SUCCESS if restored else messages.WARNING)

    @column(description=_("state"))
    def state(self, task: Task) -> str:
        name = DELETED if task.deleted_at else COMPLETED if task.is_completed else OPEN
        return coloured_label(STATES[name], COLOURS[name])

    @column(description=_("quadrant now"))
    def quadrant(self, task: Task) -> str:
        return str(
            effective_priority(
                priority=task.priority,
                is_completed=task.is_completed,
                urgency_threshold_at=task.urgency_threshold_at,
                now=utc_now(),
            )
        )
