"""Messages and runs follow their conversation in the database itself, also when a row is changed by hand.

MySQL and MariaDB only: SQLite cannot change a constraint, and there Django's own cascade does the same.
"""

from django.db import migrations

TABLES = ("chat_histories", "chat_runs")


def _replace(schema_editor, table, rule):
    if schema_editor.connection.vendor != "mysql":
        return
    with schema_editor.connection.cursor() as cursor:
        constraints = schema_editor.connection.introspection.get_constraints(cursor, table)
    old = [name for name, one in constraints.items() if one["foreign_key"] == ("agent_chats", "chat_id")]
    for name in old:
        schema_editor.execute(f"ALTER TABLE {table} DROP FOREIGN KEY {name}")
    schema_editor.execute(
        f"ALTER TABLE {table} ADD CONSTRAINT fk_{table}_chat FOREIGN KEY (chat_id) REFERENCES agent_chats (chat_id){rule}"
    )


def cascade(apps, schema_editor):
    for table in TABLES:
        _replace(schema_editor, table, " ON UPDATE CASCADE ON DELETE CASCADE")


def restrict(apps, schema_editor):
    for table in TABLES:
        _replace(schema_editor, table, "")


class Migration(migrations.Migration):
    atomic = False  # MySQL commits each ALTER by itself

    dependencies = [("chat", "0002_operator_permissions")]

    operations = [migrations.RunPython(cascade, restrict)]
