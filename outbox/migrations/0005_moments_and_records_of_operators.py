from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("outbox", "0004_open_dead_has_no_try"),
    ]

    operations = [
        migrations.AddField(
            model_name="outboxmessage",
            name="action_ids",
            field=models.CharField(blank=True, db_default="", default="", max_length=255),
        ),
        migrations.AddField(
            model_name="outboxmessage",
            name="ready_at",
            field=models.DateTimeField(blank=True, null=True),
        ),
    ]
