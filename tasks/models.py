"""Tables of the to-do side: tasks in four quadrants, and task classes with their ordered items."""

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.utils.translation import gettext_lazy as _

from tasks.contracts import ClassMode, ItemStatus, Level, Quadrant, Strategy, SubjectType


class TaskRevision(models.Model):
    """
    Which state a user's tasks are in, and their task classes; every change gives the one or the other another value,
    in the transaction of the change.

    Writers take the row first. That makes the order of a user's events the order of their commits, and a copy that was
    made under an older value is never looked up again, whoever wrote and whether Redis was there.
    """

    user = models.OneToOneField(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, primary_key=True, related_name="+")
    revision = models.CharField(max_length=36, default="")
    # A default of the database's, too: while a release is rolled out, older processes insert without it.
    class_revision = models.CharField(max_length=36, default="", db_default="")

    class Meta:
        db_table = "task_revisions"

    def __str__(self) -> str:
        return f"{self.user_id} {self.revision}"


class Task(models.Model):
    """
    One entry of a user's to-do list.

    `priority` is the stored quadrant; what people see is urgency.effective_priority. A deleted row stays for 30 days.
    """

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+", db_index=False)
    title = models.CharField(max_length=255)
    priority = models.SmallIntegerField()
    is_completed = models.BooleanField(default=False)
    deadline_at = models.DateTimeField(null=True, blank=True)
    # When a task of priority 2 or 4 becomes urgent; NULL: never.
    urgency_threshold_at = models.DateTimeField(null=True, blank=True)
    estimated_sections = models.SmallIntegerField(default=1)
    completed_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()
    deleted_at = models.DateTimeField(null=True, blank=True)
    # When it was told that this deadline is near; NULL again as soon as the deadline is another.
    due_soon_told_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        db_table = "tasks"
        verbose_name = _("task")
        verbose_name_plural = _("tasks")
        indexes = [
            models.Index(
                fields=["user", "is_completed", "urgency_threshold_at", "priority"], name="idx_task_user_urgency"
            ),
            # serves: a user's list by age, in both directions; with its last column an entry says whether it is wanted.
            # By the moment, not by the id: MariaDB then walks the primary key, past everybody else's tasks.
            models.Index(fields=["user", "deleted_at", "created_at", "id", "is_completed"], name="idx_task_user_list"),
            # serves: the list by deadline
            models.Index(
                fields=["user", "deleted_at", "deadline_at", "id", "is_completed"], name="idx_task_user_deadline"
            ),
            # serves: the sweep of what became urgent, which leaves the range by being promoted
            models.Index(
                fields=["deleted_at", "is_completed", "priority", "urgency_threshold_at", "user"], name="idx_task_due"
            ),
            # serves: the sweep of near deadlines, which leave the range by being told
            models.Index(
                fields=["deleted_at", "is_completed", "due_soon_told_at", "deadline_at", "user"],
                name="idx_task_due_soon",
            ),
            # serves: prune, and the admin's lists of open, completed and deleted tasks
            models.Index(fields=["deleted_at", "is_completed", "id"], name="idx_task_state"),
        ]
        constraints = [
            models.CheckConstraint(condition=Q(priority__in=list(Quadrant)), name="tasks_priority"),
            models.CheckConstraint(condition=Q(estimated_sections__range=(1, 4)), name="tasks_estimated_sections"),
            models.CheckConstraint(
                condition=Q(is_completed=True, completed_at__isnull=False)
                | Q(is_completed=False, completed_at__isnull=True),
                name="tasks_completion",
            ),
        ]

    def __str__(self) -> str:
        return f"#{self.pk}"


class TaskClass(models.Model):
    """A goal with a window of dates and an ordered list of items. Writers of its items lock its row first."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    name = models.CharField(max_length=255)
    mode = models.CharField(max_length=16)
    start_date = models.DateField(null=True, blank=True)
    end_date = models.DateField(null=True, blank=True)
    # "" where the user did not say.
    subject_type = models.CharField(max_length=16, blank=True, default="")
    difficulty_level = models.CharField(max_length=16, blank=True, default="")
    cognitive_intensity = models.CharField(max_length=16, blank=True, default="")
    total_slots = models.IntegerField(default=1)
    allow_filler_course = models.BooleanField(default=True)
    strategy = models.CharField(max_length=16, default=Strategy.STEADY)
    # Blocks of two sections: 1 is sections 1-2, 6 is 11-12.
    excluded_slots = models.JSONField(default=list, blank=True)
    # 1 is Monday.
    excluded_days_of_week = models.JSONField(default=list, blank=True)
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()

    class Meta:
        db_table = "task_classes"
        verbose_name = _("task class")
        verbose_name_plural = _("task classes")
        indexes = [
            # serves: the admin's list of classes of one mode
            models.Index(fields=["mode", "id"], name="idx_task_class_mode"),
        ]
        constraints = [
            models.CheckConstraint(condition=Q(mode__in=list(ClassMode)), name="task_classes_mode"),
            models.CheckConstraint(condition=Q(strategy__in=list(Strategy)), name="task_classes_strategy"),
            models.CheckConstraint(
                condition=Q(subject_type__in=["", *SubjectType])
                & Q(difficulty_level__in=["", *Level])
                & Q(cognitive_intensity__in=["", *Level]),
                name="task_classes_kind",
            ),
            models.CheckConstraint(condition=Q(total_slots__gte=1), name="task_classes_total_slots"),
            models.CheckConstraint(
                condition=Q(start_date__lte=F("end_date")) | Q(start_date__isnull=True) | Q(end_date__isnull=True),
                name="task_classes_dates",
            ),
            models.CheckConstraint(
                condition=Q(mode=ClassMode.MANUAL) | Q(start_date__isnull=False, end_date__isnull=False),
                name="task_classes_auto_dates",
            ),
        ]

    def __str__(self) -> str:
        return f"#{self.pk}"


class TaskItem(models.Model):
    """One block of a task class. `order` is 1..n within the class, without gaps."""

    category = models.ForeignKey(
        TaskClass, on_delete=models.CASCADE, related_name="items", db_column="category_id", db_index=False
    )
    order = models.IntegerField()
    content = models.TextField()
    # {week, day_of_week, section_from, section_to} once it stands in the timetable; NULL: not arranged.
    embedded_time = models.JSONField(null=True, blank=True)
    status = models.SmallIntegerField(default=ItemStatus.UNSCHEDULED)
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()

    class Meta:
        db_table = "task_items"
        verbose_name = _("task item")
        verbose_name_plural = _("task items")
        constraints = [
            # serves: a class's items in their order, too
            models.UniqueConstraint(fields=["category", "order"], name="task_items_order"),
            models.CheckConstraint(condition=Q(order__gte=1), name="task_items_order_from_one"),
            models.CheckConstraint(condition=Q(status__in=list(ItemStatus)), name="task_items_status"),
        ]

    def __str__(self) -> str:
        return f"#{self.pk}"
