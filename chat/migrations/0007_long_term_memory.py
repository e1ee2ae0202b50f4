"""The long-term memory: its items, who changed them, and what users allow."""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0004_token_ledger_and_quota"),
        ("chat", "0006_own_locks_and_the_list_by_one_index"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="MemorySettings",
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
                ("memory_enabled", models.BooleanField()),
                ("implicit_memory_enabled", models.BooleanField()),
                ("sensitive_memory_enabled", models.BooleanField()),
                ("updated_at", models.DateTimeField()),
            ],
            options={
                "verbose_name": "memory settings",
                "verbose_name_plural": "memory settings",
                "db_table": "memory_user_settings",
            },
        ),
        migrations.CreateModel(
            name="MemoryItem",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("conversation_id", models.CharField(blank=True, max_length=36, null=True)),
                ("assistant_id", models.CharField(blank=True, max_length=64, null=True)),
                ("run_id", models.CharField(blank=True, max_length=64, null=True)),
                ("memory_type", models.CharField(max_length=16)),
                ("title", models.CharField(max_length=255)),
                ("content", models.TextField()),
                ("content_hash", models.CharField(max_length=64)),
                ("confidence", models.FloatField()),
                ("importance", models.FloatField()),
                ("sensitivity_level", models.SmallIntegerField()),
                ("is_explicit", models.BooleanField()),
                ("status", models.CharField(default="active", max_length=16)),
                ("ttl_at", models.DateTimeField(blank=True, null=True)),
                ("created_at", models.DateTimeField()),
                ("updated_at", models.DateTimeField()),
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
                "verbose_name": "memory item",
                "verbose_name_plural": "memory items",
                "db_table": "memory_items",
            },
        ),
        migrations.CreateModel(
            name="MemoryAuditLog",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("action", models.CharField(max_length=16)),
                ("before", models.JSONField(null=True)),
                ("after", models.JSONField()),
                ("author_kind", models.CharField(max_length=16)),
                ("author_id", models.BigIntegerField(null=True)),
                ("reason", models.CharField(blank=True, default="", max_length=255)),
                ("created_at", models.DateTimeField()),
                (
                    "user",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "item",
                    models.ForeignKey(
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="chat.memoryitem",
                    ),
                ),
            ],
            options={
                "verbose_name": "change of the memory",
                "verbose_name_plural": "changes of the memory",
                "db_table": "memory_audit_logs",
            },
        ),
        migrations.AddIndex(
            model_name="memoryitem",
            index=models.Index(
                fields=["user", "created_at", "id", "status", "memory_type", "conversation_id"],
                name="idx_memory_user_list",
            ),
        ),
        migrations.AddIndex(
            model_name="memoryitem",
            index=models.Index(fields=["status", "id"], name="idx_memory_status"),
        ),
        migrations.AddIndex(
            model_name="memoryitem",
            index=models.Index(fields=["memory_type", "id"], name="idx_memory_type"),
        ),
        migrations.AddIndex(
            model_name="memoryitem",
            index=models.Index(fields=["status", "memory_type", "id"], name="idx_memory_status_type"),
        ),
        migrations.AddConstraint(
            model_name="memoryitem",
            constraint=models.CheckConstraint(
                condition=models.Q(("memory_type__in", ["preference", "constraint", "fact"])), name="memory_items_type"
            ),
        ),
        migrations.AddConstraint(
            model_name="memoryitem",
            constraint=models.CheckConstraint(
                condition=models.Q(("status__in", ["active", "archived", "deleted"])), name="memory_items_status"
            ),
        ),
        migrations.AddConstraint(
            model_name="memoryitem",
            constraint=models.CheckConstraint(
                condition=models.Q(("confidence__range", (0, 1)), ("importance__range", (0, 1))),
                name="memory_items_weights",
            ),
        ),
        migrations.AddConstraint(
            model_name="memoryitem",
            constraint=models.CheckConstraint(
                condition=models.Q(("sensitivity_level__range", (0, 2))), name="memory_items_sensitivity"
            ),
        ),
        migrations.AddIndex(
            model_name="memoryauditlog",
            index=models.Index(fields=["item", "id"], name="idx_memory_audit_item"),
        ),
        migrations.AddIndex(
            model_name="memoryauditlog",
            index=models.Index(fields=["user", "id"], name="idx_memory_audit_user"),
        ),
        migrations.AddConstraint(
            model_name="memoryauditlog",
            constraint=models.CheckConstraint(
                condition=models.Q(("action__in", ["create", "update", "delete", "restore", "settings"])),
                name="memory_audit_logs_action",
            ),
        ),
        migrations.AddConstraint(
            model_name="memoryauditlog",
            constraint=models.CheckConstraint(
                condition=models.Q(("author_kind__in", ["user", "system", "admin"])), name="memory_audit_logs_author"
            ),
        ),
    ]
