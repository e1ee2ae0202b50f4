"""Runs and the timeline stop locking their user's row, the timeline follows its conversation in the database itself,
and a user's list of conversations is read from one index.
"""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

TIMELINE = "agent_timeline_events"


def settle_keys(apps, schema_editor):
    """Drop the index that MySQL made for the key to the user, and let the key to the conversation cascade."""
    if schema_editor.connection.vendor != "mysql":
        return
    with schema_editor.connection.cursor() as cursor:
        constraints = schema_editor.connection.introspection.get_constraints(cursor, TIMELINE)
    for name, one in constraints.items():
        if one["foreign_key"] == ("agent_chats", "chat_id"):
            schema_editor.execute(f"ALTER TABLE {TIMELINE} DROP FOREIGN KEY {name}")
        elif one["index"] and one["columns"] == ["user_id"]:
            schema_editor.execute(f"ALTER TABLE {TIMELINE} DROP INDEX {name}")
    schema_editor.execute(
        f"ALTER TABLE {TIMELINE} ADD CONSTRAINT fk_{TIMELINE}_chat FOREIGN KEY (chat_id)"
        " REFERENCES agent_chats (chat_id) ON UPDATE CASCADE ON DELETE CASCADE"
    )


def _user(**options):
    return models.ForeignKey(
        db_constraint=False,
        on_delete=django.db.models.deletion.CASCADE,
        related_name="+",
        to=settings.AUTH_USER_MODEL,
        **options,
    )


class Migration(migrations.Migration):
    atomic = False  # MySQL commits each ALTER by itself

    dependencies = [
        ("chat", "0005_timeline_of_earlier_runs"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.AlterField(model_name="agentstatesnapshot", name="user", field=_user()),
        migrations.AlterField(model_name="agenttimelineevent", name="user", field=_user(db_index=False)),
        migrations.AlterField(model_name="chatrun", name="user", field=_user(db_index=False)),
        migrations.RunPython(settle_keys, migrations.RunPython.noop),
        migrations.AddIndex(
            model_name="agentchat",
            index=models.Index(fields=["user", "deleted_at", "last_message_at", "id", "status"], name="idx_user_shown"),
        ),
    ]
