"""Tasks in four quadrants, task classes with their ordered items, and the revision of each user's tasks."""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

ITEMS = "task_items"


def _replace(schema_editor, rule):
    """Let items follow their class in the database itself; on SQLite Django's own cascade does the same."""
    if schema_editor.connection.vendor != "mysql":
        return
    with schema_editor.connection.cursor() as cursor:
        constraints = schema_editor.connection.introspection.get_constraints(cursor, ITEMS)
    for name, one in constraints.items():
        if one["foreign_key"] == ("task_classes", "id"):
            schema_editor.execute(f"ALTER TABLE {ITEMS} DROP FOREIGN KEY {name}")
    schema_editor.execute(
        f"ALTER TABLE {ITEMS} ADD CONSTRAINT fk_{ITEMS}_class FOREIGN KEY (category_id)"
        f" REFERENCES task_classes (id){rule}"
    )


def cascade(apps, schema_editor):
    _replace(schema_editor, " ON DELETE CASCADE")


def restrict(apps, schema_editor):
    _replace(schema_editor, "")


class Migration(migrations.Migration):
    atomic = False  # MySQL commits each ALTER by itself
    initial = True

    dependencies = [
        ("accounts", "0004_token_ledger_and_quota"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="TaskRevision",
            fields=[
                (
                    "user",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="+",
                        serialize=False,
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                ("revision", models.CharField(max_length=36)),
            ],
            options={
                "db_table": "task_revisions",
            },
        ),
        migrations.CreateModel(
            name="TaskClass",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("name", models.CharField(max_length=255)),
                ("mode", models.CharField(max_length=16)),
                ("start_date", models.DateField(blank=True, null=True)),
                ("end_date", models.DateField(blank=True, null=True)),
                ("subject_type", models.CharField(blank=True, default="", max_length=16)),
                ("difficulty_level", models.CharField(blank=True, default="", max_length=16)),
                ("cognitive_intensity", models.CharField(blank=True, default="", max_length=16)),
                ("total_slots", models.IntegerField(default=1)),
                ("allow_filler_course", models.BooleanField(default=True)),
                ("strategy", models.CharField(default="steady", max_length=16)),
                ("excluded_slots", models.JSONField(blank=True, default=list)),
                ("excluded_days_of_week", models.JSONField(blank=True, default=list)),
                ("created_at", models.DateTimeField()),
                ("updated_at", models.DateTimeField()),
                (
                    "user",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="+", to=settings.AUTH_USER_MODEL
                    ),
                ),
            ],
            options={
                "verbose_name": "task class",
                "verbose_name_plural": "task classes",
                "db_table": "task_classes",
                "indexes": [models.Index(fields=["mode", "id"], name="idx_task_class_mode")],
            },
        ),
        migrations.CreateModel(
            name="TaskItem",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("order", models.IntegerField()),
                ("content", models.TextField()),
                ("embedded_time", models.JSONField(blank=True, null=True)),
                ("status", models.SmallIntegerField(default=1)),
                ("created_at", models.DateTimeField()),
                ("updated_at", models.DateTimeField()),
                (
                    "category",
                    models.ForeignKey(
                        db_column="category_id",
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="items",
                        to="tasks.taskclass",
                    ),
                ),
            ],
            options={
                "verbose_name": "task item",
                "verbose_name_plural": "task items",
                "db_table": "task_items",
            },
        ),
        migrations.CreateModel(
            name="Task",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("title", models.CharField(max_length=255)),
                ("priority", models.SmallIntegerField()),
                ("is_completed", models.BooleanField(default=False)),
                ("deadline_at", models.DateTimeField(blank=True, null=True)),
                ("urgency_threshold_at", models.DateTimeField(blank=True, null=True)),
                ("estimated_sections", models.SmallIntegerField(default=1)),
                ("completed_at", models.DateTimeField(blank=True, null=True)),
                ("created_at", models.DateTimeField()),
                ("updated_at", models.DateTimeField()),
                ("deleted_at", models.DateTimeField(blank=True, null=True)),
                (
                    "user",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "verbose_name": "task",
                "verbose_name_plural": "tasks",
                "db_table": "tasks",
                "indexes": [
                    models.Index(
                        fields=["user", "is_completed", "urgency_threshold_at", "priority"],
                        name="idx_task_user_urgency",
                    ),
                    models.Index(
                        fields=["user", "deleted_at", "created_at", "id", "is_completed"], name="idx_task_user_list"
                    ),
                    models.Index(
                        fields=["user", "deleted_at", "deadline_at", "id", "is_completed"],
                        name="idx_task_user_deadline",
                    ),
                    models.Index(
                        fields=["deleted_at", "is_completed", "priority", "urgency_threshold_at", "user"],
                        name="idx_task_due",
                    ),
                    models.Index(fields=["deleted_at", "is_completed", "id"], name="idx_task_state"),
                ],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            (
                                "priority__in",
                                [
                                    1,
                                    2,
                                    3,
                                    4,
                                ],
                            )
                        ),
                        name="tasks_priority",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("estimated_sections__range", (1, 4))), name="tasks_estimated_sections"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("completed_at__isnull", False), ("is_completed", True)),
                            models.Q(("completed_at__isnull", True), ("is_completed", False)),
                            _connector="OR",
                        ),
                        name="tasks_completion",
                    ),
                ],
            },
        ),
        migrations.AddConstraint(
            model_name="taskclass",
            constraint=models.CheckConstraint(
                condition=models.Q(("mode__in", ["auto", "manual"])),
                name="task_classes_mode",
            ),
        ),
        migrations.AddConstraint(
            model_name="taskclass",
            constraint=models.CheckConstraint(
                condition=models.Q(("strategy__in", ["steady", "rapid"])),
                name="task_classes_strategy",
            ),
        ),
        migrations.AddConstraint(
            model_name="taskclass",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    (
                        "subject_type__in",
                        [
                            "",
                            "quantitative",
                            "memory",
                            "reading",
                            "mixed",
                        ],
                    ),
                    (
                        "difficulty_level__in",
                        [
                            "",
                            "low",
                            "medium",
                            "high",
                        ],
                    ),
                    (
                        "cognitive_intensity__in",
                        [
                            "",
                            "low",
                            "medium",
                            "high",
                        ],
                    ),
                ),
                name="task_classes_kind",
            ),
        ),
        migrations.AddConstraint(
            model_name="taskclass",
            constraint=models.CheckConstraint(
                condition=models.Q(("total_slots__gte", 1)), name="task_classes_total_slots"
            ),
        ),
        migrations.AddConstraint(
            model_name="taskclass",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("start_date__lte", models.F("end_date")),
                    ("start_date__isnull", True),
                    ("end_date__isnull", True),
                    _connector="OR",
                ),
                name="task_classes_dates",
            ),
        ),
        migrations.AddConstraint(
            model_name="taskclass",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("mode", "manual"),
                    models.Q(("end_date__isnull", False), ("start_date__isnull", False)),
                    _connector="OR",
                ),
                name="task_classes_auto_dates",
            ),
        ),
        migrations.AddConstraint(
            model_name="taskitem",
            constraint=models.UniqueConstraint(fields=("category", "order"), name="task_items_order"),
        ),
        migrations.AddConstraint(
            model_name="taskitem",
            constraint=models.CheckConstraint(condition=models.Q(("order__gte", 1)), name="task_items_order_from_one"),
        ),
        migrations.AddConstraint(
            model_name="taskitem",
            constraint=models.CheckConstraint(
                condition=models.Q(("status__in", [1, 2])),
                name="task_items_status",
            ),
        ),
        migrations.RunPython(cascade, restrict),
    ]
