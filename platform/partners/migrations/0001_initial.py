import functools

import django.db.models.deletion
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
            name="Partner",
            fields=[
                (
                    "id",
                    models.CharField(
                        default=functools.partial(core.ids.new_id, *("par",)),
                        editable=False,
                        max_length=32,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("slug", models.SlugField(max_length=63, unique=True)),
                ("name", models.CharField(max_length=120)),
                ("jurisdiction", models.CharField(max_length=2)),
                ("created_at", models.DateTimeField(default=tenants.fields.now, editable=False)),
            ],
        ),
        migrations.CreateModel(
            name="Pool",
            fields=[
                (
                    "id",
                    models.CharField(
                        default=functools.partial(core.ids.new_id, *("pol",)),
                        editable=False,
                        max_length=32,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("slug", models.SlugField(max_length=63)),
                ("region", models.CharField(max_length=63)),
                ("accelerator", models.CharField(max_length=63)),
                ("created_at", models.DateTimeField(default=tenants.fields.now, editable=False)),
                (
                    "partner",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="pools",
                        to="partners.partner",
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="Worker",
            fields=[
                (
                    "id",
                    models.CharField(
                        default=functools.partial(core.ids.new_id, *("wrk",)),
                        editable=False,
                        max_length=32,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("name", models.CharField(max_length=120)),
                ("endpoint", models.CharField(max_length=200)),
                ("public_key", models.CharField(max_length=64, unique=True)),
                ("release_digest", models.CharField(max_length=64)),
                ("release_slug", models.CharField(max_length=63)),
                ("capacity", models.JSONField()),
                ("max_running", models.PositiveIntegerField()),
                (
                    "state",
                    models.CharField(
                        choices=[("active", "Active"), ("draining", "Draining"), ("retired", "Retired")],
                        default="active",
                        max_length=16,
                    ),
                ),
                ("enrolled_at", models.DateTimeField(default=tenants.fields.now)),
                (
                    "pool",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="workers",
                        to="partners.pool",
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="EnrolmentToken",
            fields=[
                (
                    "id",
                    models.CharField(
                        default=functools.partial(core.ids.new_id, *("enr",)),
                        editable=False,
                        max_length=32,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("digest", models.CharField(max_length=64, unique=True)),
                ("created_at", models.DateTimeField(default=tenants.fields.now, editable=False)),
                ("expires_at", models.DateTimeField()),
                ("nonce", models.CharField(max_length=64, null=True)),
                ("used_at", models.DateTimeField(null=True)),
                (
                    "pool",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="enrolment_tokens",
                        to="partners.pool",
                    ),
                ),
                (
                    "used_by",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="partners.worker",
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="Offer",
            fields=[
                (
                    "id",
                    models.CharField(
                        default=functools.partial(core.ids.new_id, *("off",)),
                        editable=False,
                        max_length=32,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("release_slug", models.CharField(max_length=63)),
                ("input_nano_per_mtok", models.BigIntegerField()),
                ("cached_input_nano_per_mtok", models.BigIntegerField()),
                ("output_nano_per_mtok", models.BigIntegerField()),
                ("effective_at", models.DateTimeField(default=tenants.fields.now)),
                (
                    "partner",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="offers",
                        to="partners.partner",
                    ),
                ),
            ],
            options={
                "indexes": [
                    models.Index(
                        models.F("partner"),
                        models.F("release_slug"),
                        models.OrderBy(models.F("effective_at"), descending=True),
                        name="offer_in_force",
                    )
                ],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            ("cached_input_nano_per_mtok__gte", 0),
                            ("input_nano_per_mtok__gte", 0),
                            ("output_nano_per_mtok__gte", 0),
                        ),
                        name="offer_price_not_negative",
                    )
                ],
            },
        ),
        migrations.AddConstraint(
            model_name="pool",
            constraint=models.UniqueConstraint(fields=("partner", "slug"), name="pool_once_per_partner"),
        ),
        migrations.AddIndex(
            model_name="worker",
            index=models.Index(models.F("state"), name="worker_by_state"),
        ),
        migrations.AddConstraint(
            model_name="worker",
            constraint=models.CheckConstraint(
                condition=models.Q(("state__in", ["active", "draining", "retired"])),
                name="worker_state_known",
            ),
        ),
        migrations.AddConstraint(
            model_name="worker",
            constraint=models.CheckConstraint(
                condition=models.Q(("max_running__gte", 1)), name="worker_runs_something"
            ),
        ),
        migrations.AddConstraint(
            model_name="enrolmenttoken",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("used_at__isnull", True), ("used_by__isnull", True)),
                    models.Q(("used_at__isnull", False), ("used_by__isnull", False)),
                    _connector="OR",
                ),
                name="enrolment_used_by_someone",
            ),
        ),
        append_only("partners_offer"),
        grant("partners_partner", APP_ROLE, "SELECT"),
        grant("partners_pool", APP_ROLE, "SELECT"),
        grant("partners_offer", APP_ROLE, "SELECT"),
        grant("partners_partner", SYSTEM_ROLE, "SELECT, INSERT, UPDATE (name, jurisdiction)"),
        grant("partners_pool", SYSTEM_ROLE, "SELECT, INSERT, UPDATE (region, accelerator)"),
        grant("partners_worker", SYSTEM_ROLE, "SELECT, INSERT, UPDATE"),
        grant(
            "partners_enrolmenttoken",
            SYSTEM_ROLE,
            "SELECT, INSERT, UPDATE (nonce, expires_at, used_at, used_by_id)",
        ),
        grant("partners_offer", SYSTEM_ROLE, "SELECT, INSERT"),
    ]
