import django.db.models.expressions
from django.db import migrations, models

import tenants.fields
from tenants.row_security import APP_ROLE, SYSTEM_ROLE, append_only, grant, row_security


class Migration(migrations.Migration):
    initial = True

    dependencies = [("tenants", "0001_initial")]

    operations = [
        migrations.CreateModel(
            name="UsageRecord",
            fields=[
                ("request_id", models.CharField(max_length=32, primary_key=True, serialize=False)),
                ("tenant_id", models.CharField(max_length=32)),
                ("project_id", models.CharField(max_length=32)),
                ("api_key_id", models.CharField(max_length=32)),
                ("partner_id", models.CharField(max_length=32)),
                ("pool_id", models.CharField(max_length=32)),
                ("worker_id", models.CharField(max_length=32)),
                ("release_id", models.CharField(max_length=32)),
                ("offer_id", models.CharField(max_length=32)),
                ("model", models.CharField(max_length=63)),
                ("endpoint", models.CharField(max_length=63)),
                ("prompt_tokens", models.BigIntegerField()),
                ("cached_tokens", models.BigIntegerField()),
                ("completion_tokens", models.BigIntegerField()),
                ("finish_reason", models.CharField(max_length=32)),
                ("input_nano_per_mtok", models.BigIntegerField()),
                ("cached_input_nano_per_mtok", models.BigIntegerField()),
                ("output_nano_per_mtok", models.BigIntegerField()),
                ("levy_ppm", models.BigIntegerField()),
                ("share_nano", models.BigIntegerField()),
                ("levy_nano", models.BigIntegerField()),
                ("charge_nano", models.BigIntegerField()),
                ("witness", models.CharField(max_length=16)),
                ("received_at", models.DateTimeField()),
                ("first_token_at", models.DateTimeField(null=True)),
                ("finished_at", models.DateTimeField()),
                ("posted_at", models.DateTimeField(default=tenants.fields.now, editable=False)),
                ("receipt", models.JSONField()),
                ("decision", models.JSONField()),
            ],
            options={
                "indexes": [
                    models.Index(
                        models.F("tenant_id"),
                        models.OrderBy(models.F("finished_at"), descending=True),
                        name="usage_by_tenant",
                    ),
                    models.Index(
                        models.F("partner_id"),
                        models.OrderBy(models.F("finished_at"), descending=True),
                        name="usage_by_partner",
                    ),
                ],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            (
                                "charge_nano",
                                django.db.models.expressions.CombinedExpression(
                                    models.F("share_nano"), "+", models.F("levy_nano")
                                ),
                            )
                        ),
                        name="usage_charge_is_share_and_levy",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("cached_tokens__gte", 0),
                            ("completion_tokens__gte", 0),
                            ("levy_nano__gte", 0),
                            ("prompt_tokens__gte", models.F("cached_tokens")),
                            ("share_nano__gte", 0),
                        ),
                        name="usage_counts_not_negative",
                    ),
                ],
            },
        ),
        *row_security("metering_usagerecord", app_write="false"),
        append_only("metering_usagerecord"),
        grant("metering_usagerecord", APP_ROLE, "SELECT"),
        grant("metering_usagerecord", SYSTEM_ROLE, "SELECT, INSERT"),
    ]
