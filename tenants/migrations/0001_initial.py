import functools

import django.db.models.deletion
import django.db.models.functions.text
from django.conf import settings
from django.db import migrations, models

import core.ids
import tenants.fields
from tenants.row_security import (
    APP_ROLE,
    IN_TENANT,
    REFUSE_CHANGE,
    SYSTEM_ROLE,
    append_only,
    grant,
    row_security,
)

USER_ID = "current_setting('tokenworks.user_id', true)"
THIS_TENANT = "id = current_setting('tokenworks.tenant_id', true)"
IN_OWN_TENANTS = (
    "id IN (SELECT tenant_id FROM tenants_membership"
    " WHERE user_id = current_setting('tokenworks.user_id', true))"
)
IS_FELLOW_MEMBER = (
    "id IN (SELECT user_id FROM tenants_membership"
    " WHERE tenant_id = current_setting('tokenworks.tenant_id', true))"
)
SHOWABLE = "id, email, name, is_active, created_at"


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        ("sessions", "0001_initial"),
    ]

    operations = [
        migrations.CreateModel(
            name="SignInWindow",
            fields=[
                ("subject", models.CharField(max_length=64, primary_key=True, serialize=False)),
                ("started_at", models.DateTimeField()),
                ("attempts", models.PositiveIntegerField()),
            ],
        ),
        migrations.CreateModel(
            name="Tenant",
            fields=[
                (
                    "id",
                    models.CharField(
                        default=functools.partial(core.ids.new_id, *("ten",)),
                        editable=False,
                        max_length=32,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("name", models.CharField(max_length=120)),
                ("slug", models.SlugField(max_length=63, unique=True)),
                ("is_active", models.BooleanField(default=True)),
                ("created_at", models.DateTimeField(default=tenants.fields.now, editable=False)),
            ],
        ),
        migrations.CreateModel(
            name="User",
            fields=[
                ("password", models.CharField(max_length=128, verbose_name="password")),
                ("last_login", models.DateTimeField(blank=True, null=True, verbose_name="last login")),
                (
                    "id",
                    models.CharField(
                        default=functools.partial(core.ids.new_id, *("usr",)),
                        editable=False,
                        max_length=32,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("email", models.EmailField(max_length=254, unique=True)),
                ("name", models.CharField(blank=True, max_length=120)),
                ("is_foundation_admin", models.BooleanField(default=False)),
                ("is_active", models.BooleanField(default=True)),
                ("partner_id", models.CharField(blank=True, max_length=32, null=True)),
                ("created_at", models.DateTimeField(default=tenants.fields.now, editable=False)),
            ],
            options={
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("email", django.db.models.functions.text.Lower("email"))),
                        name="user_email_lower_case",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="Project",
            fields=[
                (
                    "id",
                    models.CharField(
                        default=functools.partial(core.ids.new_id, *("prj",)),
                        editable=False,
                        max_length=32,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("name", models.CharField(max_length=120)),
                ("created_at", models.DateTimeField(default=tenants.fields.now, editable=False)),
                (
                    "tenant",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="projects",
                        to="tenants.tenant",
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="Membership",
            fields=[
                (
                    "id",
                    models.CharField(
                        default=functools.partial(core.ids.new_id, *("mem",)),
                        editable=False,
                        max_length=32,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                (
                    "role",
                    models.CharField(
                        choices=[("owner", "Owner"), ("member", "Member"), ("viewer", "Viewer")],
                        max_length=16,
                    ),
                ),
                ("created_at", models.DateTimeField(default=tenants.fields.now, editable=False)),
                (
                    "user",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="memberships",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "tenant",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="memberships",
                        to="tenants.tenant",
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="IdempotentAnswer",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("actor", models.CharField(max_length=64)),
                ("key", models.CharField(max_length=255)),
                ("request_sha256", models.CharField(max_length=64)),
                ("answer", models.BinaryField()),
                ("created_at", models.DateTimeField(default=tenants.fields.now, editable=False)),
                (
                    "tenant",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="+", to="tenants.tenant"
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="AuditEntry",
            fields=[
                (
                    "id",
                    models.CharField(
                        default=functools.partial(core.ids.new_id, *("aud",)),
                        editable=False,
                        max_length=32,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("actor", models.CharField(max_length=64)),
                ("action", models.CharField(max_length=64)),
                ("object_id", models.CharField(max_length=64)),
                ("data", models.JSONField(default=dict)),
                ("at", models.DateTimeField(default=tenants.fields.now, editable=False)),
                (
                    "tenant",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="tenants.tenant",
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="ApiKey",
            fields=[
                (
                    "id",
                    models.CharField(
                        default=functools.partial(core.ids.new_id, *("key",)),
                        editable=False,
                        max_length=32,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("name", models.CharField(max_length=120)),
                ("display", models.CharField(max_length=32)),
                ("digest", models.CharField(max_length=64, unique=True)),
                (
                    "kind",
                    models.CharField(
                        choices=[("api", "Api"), ("playground", "Playground")], default="api", max_length=16
                    ),
                ),
                ("created_at", models.DateTimeField(default=tenants.fields.now, editable=False)),
                ("expires_at", models.DateTimeField(null=True)),
                ("revoked_at", models.DateTimeField(null=True)),
                ("requests_per_minute", models.PositiveIntegerField(default=6000)),
                ("max_concurrency", models.PositiveIntegerField(default=512)),
                (
                    "created_by",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "project",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="api_keys",
                        to="tenants.project",
                    ),
                ),
                (
                    "tenant",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="api_keys",
                        to="tenants.tenant",
                    ),
                ),
            ],
        ),
        migrations.AddConstraint(
            model_name="project",
            constraint=models.UniqueConstraint(
                fields=("tenant", "name"), name="project_name_once_per_tenant"
            ),
        ),
        migrations.AddConstraint(
            model_name="membership",
            constraint=models.UniqueConstraint(fields=("tenant", "user"), name="membership_once"),
        ),
        migrations.AddConstraint(
            model_name="membership",
            constraint=models.CheckConstraint(
                condition=models.Q(("role__in", ["owner", "member", "viewer"])), name="membership_role_known"
            ),
        ),
        migrations.AddConstraint(
            model_name="idempotentanswer",
            constraint=models.UniqueConstraint(
                fields=("tenant", "actor", "key"), name="idempotency_key_once"
            ),
        ),
        migrations.AddIndex(
            model_name="auditentry",
            index=models.Index(
                models.F("tenant"), models.OrderBy(models.F("id"), descending=True), name="audit_by_tenant"
            ),
        ),
        migrations.AddIndex(
            model_name="apikey",
            index=models.Index(
                models.F("tenant"), models.OrderBy(models.F("id"), descending=True), name="apikey_by_tenant"
            ),
        ),
        migrations.AddConstraint(
            model_name="apikey",
            constraint=models.CheckConstraint(
                condition=models.Q(("kind__in", ["api", "playground"])), name="apikey_kind_known"
            ),
        ),
        migrations.AddConstraint(
            model_name="apikey",
            constraint=models.CheckConstraint(
                condition=models.Q(("max_concurrency__gte", 1), ("requests_per_minute__gte", 1)),
                name="apikey_limits_positive",
            ),
        ),
        REFUSE_CHANGE,
        *row_security("tenants_tenant", app=f"{THIS_TENANT} OR {IN_OWN_TENANTS}", app_write="false"),
        *row_security("tenants_user", app=f"id = {USER_ID} OR {IS_FELLOW_MEMBER}", app_write="false"),
        *row_security("tenants_membership", app=f"{IN_TENANT} OR user_id = {USER_ID}", app_write=IN_TENANT),
        *row_security("tenants_project"),
        *row_security("tenants_apikey"),
        *row_security("tenants_auditentry"),
        *row_security("tenants_idempotentanswer"),
        append_only("tenants_auditentry"),
        grant("tenants_tenant", APP_ROLE, "SELECT"),
        grant("tenants_user", APP_ROLE, f"SELECT ({SHOWABLE})"),
        grant("tenants_membership", APP_ROLE, "SELECT"),
        grant("tenants_project", APP_ROLE, "SELECT, INSERT"),
        grant("tenants_apikey", APP_ROLE, "SELECT, INSERT, UPDATE (revoked_at)"),
        grant("tenants_auditentry", APP_ROLE, "SELECT, INSERT"),
        grant("tenants_idempotentanswer", APP_ROLE, "SELECT, INSERT, DELETE"),
        grant("tenants_tenant", SYSTEM_ROLE, "SELECT, INSERT, UPDATE (name, is_active)"),
        grant("tenants_user", SYSTEM_ROLE, "SELECT, INSERT, UPDATE"),
        grant("tenants_membership", SYSTEM_ROLE, "SELECT, INSERT, UPDATE (role), DELETE"),
        grant("tenants_project", SYSTEM_ROLE, "SELECT, INSERT"),
        grant("tenants_apikey", SYSTEM_ROLE, "SELECT, INSERT, UPDATE (revoked_at)"),
        grant("tenants_auditentry", SYSTEM_ROLE, "SELECT, INSERT"),
        grant("tenants_signinwindow", SYSTEM_ROLE, "SELECT, INSERT, UPDATE, DELETE"),
        grant("django_session", SYSTEM_ROLE, "SELECT, INSERT, UPDATE, DELETE"),
    ]
