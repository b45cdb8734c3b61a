import functools

from django.db import migrations, models

import core.ids
import tenants.fields
from tenants.row_security import APP_ROLE, SYSTEM_ROLE, grant


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        ("tenants", "0001_initial"),
    ]

    operations = [
        migrations.CreateModel(
            name="Release",
            fields=[
                (
                    "id",
                    models.CharField(
                        default=functools.partial(core.ids.new_id, *("rel",)),
                        editable=False,
                        max_length=32,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("slug", models.CharField(max_length=63)),
                ("digest", models.CharField(max_length=64)),
                ("manifest", models.JSONField()),
                ("artifact_dir", models.CharField(max_length=500)),
                ("max_model_len", models.PositiveIntegerField()),
                ("vocab_size", models.PositiveIntegerField()),
                (
                    "state",
                    models.CharField(
                        choices=[("available", "Available"), ("retired", "Retired")],
                        default="available",
                        max_length=16,
                    ),
                ),
                ("created_at", models.DateTimeField(default=tenants.fields.now, editable=False)),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(fields=("slug", "digest"), name="release_digest_once_per_slug"),
                    models.UniqueConstraint(
                        condition=models.Q(("state", "available")),
                        fields=("slug",),
                        name="release_one_available_per_slug",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("state__in", ["available", "retired"])),
                        name="release_state_known",
                    ),
                ],
            },
        ),
        grant("releases_release", APP_ROLE, "SELECT"),
        grant("releases_release", SYSTEM_ROLE, "SELECT, INSERT, UPDATE (artifact_dir, state)"),
    ]
