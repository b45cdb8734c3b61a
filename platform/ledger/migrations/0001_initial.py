import functools

import django.db.models.deletion
from django.db import migrations, models

import core.ids
import tenants.fields
from tenants.row_security import APP_ROLE, IN_TENANT, SYSTEM_ROLE, append_only, grant, row_security

# Accounts are locked in id order, so two postings never wait for each other in a circle; and with
# NO KEY UPDATE, because each posting's foreign-key checks hold KEY SHARE on the same rows.
POST = """
    CREATE FUNCTION ledger_post() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = public, pg_temp AS $$
    BEGIN
        PERFORM 1 FROM ledger_account
            WHERE id IN (SELECT debit_account_id FROM posted UNION SELECT credit_account_id FROM posted)
            ORDER BY id FOR NO KEY UPDATE;
        UPDATE ledger_account SET balance_nano = balance_nano + moved.delta_nano, version = version + 1
            FROM (
                SELECT account_id, sum(amount_nano)::bigint AS delta_nano FROM (
                    SELECT debit_account_id AS account_id, -amount_nano AS amount_nano FROM posted
                    UNION ALL
                    SELECT credit_account_id, amount_nano FROM posted
                ) AS leg GROUP BY account_id
            ) AS moved
            WHERE ledger_account.id = moved.account_id;
        RETURN NULL;
    END $$
"""
POST_TRIGGER = """
    CREATE TRIGGER post AFTER INSERT ON ledger_transfer REFERENCING NEW TABLE AS posted
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_post()
"""
# Accounts have policies of their own: they start empty, and only the trigger's owner updates them.
ACCOUNT_POLICIES = (
    f"CREATE POLICY app ON ledger_account FOR SELECT TO {APP_ROLE} USING ({IN_TENANT})",
    f"CREATE POLICY system_reads ON ledger_account FOR SELECT TO {SYSTEM_ROLE} USING (true)",
    f"CREATE POLICY system_opens ON ledger_account FOR INSERT TO {SYSTEM_ROLE}"
    " WITH CHECK (balance_nano = 0 AND version = 0)",
    "CREATE POLICY trigger_reads ON ledger_account FOR SELECT TO CURRENT_USER USING (true)",
    "CREATE POLICY trigger_posts ON ledger_account FOR UPDATE TO CURRENT_USER USING (true)",
)


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        ("tenants", "0001_initial"),
    ]

    operations = [
        migrations.CreateModel(
            name="Account",
            fields=[
                (
                    "id",
                    models.CharField(
                        default=functools.partial(core.ids.new_id, *("acc",)),
                        editable=False,
                        max_length=32,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                (
                    "kind",
                    models.CharField(
                        choices=[
                            ("tenant", "Tenant"),
                            ("partner", "Partner"),
                            ("foundation", "Foundation"),
                            ("external", "External"),
                        ],
                        max_length=16,
                    ),
                ),
                ("owner_id", models.CharField(max_length=64)),
                ("tenant_id", models.CharField(max_length=32, null=True)),
                ("balance_nano", models.BigIntegerField(default=0)),
                ("version", models.BigIntegerField(default=0)),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(fields=("kind", "owner_id"), name="account_once_per_owner"),
                    models.CheckConstraint(
                        condition=models.Q(("kind__in", ["tenant", "partner", "foundation", "external"])),
                        name="account_kind_known",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(
                                ("kind", "tenant"),
                                ("tenant_id", models.F("owner_id")),
                                ("tenant_id__isnull", False),
                            ),
                            models.Q(
                                models.Q(("kind", "tenant"), _negated=True), ("tenant_id__isnull", True)
                            ),
                            _connector="OR",
                        ),
                        name="account_tenant_matches_kind",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Transfer",
            fields=[
                (
                    "id",
                    models.CharField(
                        default=functools.partial(core.ids.new_id, *("trf",)),
                        editable=False,
                        max_length=32,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("amount_nano", models.BigIntegerField()),
                (
                    "kind",
                    models.CharField(
                        choices=[
                            ("topup", "Topup"),
                            ("grant", "Grant"),
                            ("usage_share", "Usage Share"),
                            ("usage_levy", "Usage Levy"),
                            ("adjustment", "Adjustment"),
                        ],
                        max_length=16,
                    ),
                ),
                ("reference", models.CharField(max_length=200)),
                ("idempotency_key", models.CharField(max_length=200, unique=True)),
                ("tenant_id", models.CharField(max_length=32, null=True)),
                ("posted_at", models.DateTimeField(default=tenants.fields.now, editable=False)),
                (
                    "credit_account",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="credits",
                        to="ledger.account",
                    ),
                ),
                (
                    "debit_account",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="debits",
                        to="ledger.account",
                    ),
                ),
            ],
            options={
                "indexes": [
                    models.Index(
                        models.F("tenant_id"),
                        models.OrderBy(models.F("posted_at"), descending=True),
                        name="transfer_by_tenant",
                    )
                ],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("amount_nano__gt", 0)), name="transfer_amount_positive"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("debit_account", models.F("credit_account")), _negated=True),
                        name="transfer_between_two_accounts",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("kind__in", ["topup", "grant", "usage_share", "usage_levy", "adjustment"])
                        ),
                        name="transfer_kind_known",
                    ),
                ],
            },
        ),
        migrations.RunSQL(
            [
                "ALTER TABLE ledger_account ENABLE ROW LEVEL SECURITY",
                "ALTER TABLE ledger_account FORCE ROW LEVEL SECURITY",
            ],
            reverse_sql=[
                "ALTER TABLE ledger_account NO FORCE ROW LEVEL SECURITY",
                "ALTER TABLE ledger_account DISABLE ROW LEVEL SECURITY",
            ],
        ),
        *[
            migrations.RunSQL(policy, reverse_sql=f"DROP POLICY {policy.split()[2]} ON ledger_account")
            for policy in ACCOUNT_POLICIES
        ],
        *row_security("ledger_transfer", app_write="false"),
        migrations.RunSQL(POST, reverse_sql="DROP FUNCTION ledger_post()"),
        migrations.RunSQL(POST_TRIGGER, reverse_sql="DROP TRIGGER post ON ledger_transfer"),
        append_only("ledger_transfer"),
        grant("ledger_account", APP_ROLE, "SELECT"),
        grant("ledger_transfer", APP_ROLE, "SELECT"),
        grant("ledger_account", SYSTEM_ROLE, "SELECT, INSERT"),
        grant("ledger_transfer", SYSTEM_ROLE, "SELECT, INSERT"),
    ]
