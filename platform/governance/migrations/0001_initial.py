import functools

from django.db import migrations, models

import core.ids
import tenants.fields
from tenants.row_security import APP_ROLE, SYSTEM_ROLE, append_only, grant


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        ("tenants", "0001_initial"),
    ]

    operations = [
        migrations.CreateModel(
            name="Charter",
            fields=[
                (
                    "id",
                    models.CharField(
                        default=functools.partial(core.ids.new_id, *("chr",)),
                        editable=False,
                        max_length=32,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("digest", models.CharField(max_length=64)),
                ("document", models.JSONField()),
                ("effective_at", models.DateTimeField(default=tenants.fields.now)),
                ("created_at", models.DateTimeField(default=tenants.fields.now, editable=False)),
            ],
        ),
        append_only("governance_charter"),
        grant("governance_charter", APP_ROLE, "SELECT"),
        grant("governance_charter", SYSTEM_ROLE, "SELECT, INSERT"),
    ]
