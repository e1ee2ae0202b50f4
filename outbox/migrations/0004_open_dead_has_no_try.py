from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("outbox", "0003_discarded_rows_apart"),
    ]

    operations = [
        migrations.AddConstraint(
            model_name="outboxmessage",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("status", "dead"), _negated=True),
                    ("discarded_at__isnull", False),
                    ("next_retry_at__isnull", True),
                    _connector="OR",
                ),
                name="outbox_open_dead_has_no_try",
            ),
        ),
    ]
