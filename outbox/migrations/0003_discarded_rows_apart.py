from django.db import migrations
from django.db.models import F

BATCH = 1000


def set_apart(apps, schema_editor):
    rows = apps.get_model("outbox", "OutboxMessage").objects.using(schema_editor.connection.alias)
    discarded = rows.filter(status="dead", next_retry_at__isnull=True, discarded_at__isnull=False)
    while ids := list(discarded.values_list("id", flat=True)[:BATCH]):
        rows.filter(id__in=ids).update(next_retry_at=F("discarded_at"))


def put_back(apps, schema_editor):
    rows = apps.get_model("outbox", "OutboxMessage").objects.using(schema_editor.connection.alias)
    while ids := list(rows.filter(status="dead", next_retry_at__isnull=False).values_list("id", flat=True)[:BATCH]):
        rows.filter(id__in=ids).update(next_retry_at=None)


class Migration(migrations.Migration):
    dependencies = [("outbox", "0002_index_of_places")]

    operations = [migrations.RunPython(set_apart, put_back)]
