"""What attempts cost that died before their first word is counted in their run."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("chat", "0007_long_term_memory"),
    ]

    operations = [
        migrations.AddField(
            model_name="chatrun",
            name="lost_tokens",
            field=models.IntegerField(default=0),
        ),
    ]
