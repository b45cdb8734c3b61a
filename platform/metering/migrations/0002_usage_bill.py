from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("metering", "0001_initial"),
    ]

    operations = [
        migrations.AddIndex(
            model_name="usagerecord",
            index=models.Index(
                models.F("tenant_id"),
                models.OrderBy(models.F("request_id"), descending=True),
                name="usage_bill",
            ),
        ),
    ]
