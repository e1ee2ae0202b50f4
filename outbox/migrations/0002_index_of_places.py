from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("outbox", "0001_outbox_tables")]

    operations = [
        migrations.AddIndex(
            model_name="outboxmessage",
            index=models.Index(
                fields=["status", "published_partition", "topic", "published_offset"], name="idx_outbox_place"
            ),
        ),
    ]
