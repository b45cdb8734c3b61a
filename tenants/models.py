"""Rows of organisations and people. Every table with a ``tenant_id`` is under row-level security."""

from __future__ import annotations

from typing import ClassVar

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Lower

from tenants.fields import created_field, id_field


class Tenant(models.Model):
    """An organisation that buys."""

    id = id_field("ten")
    name = models.CharField(max_length=120)
    slug = models.SlugField(max_length=63, unique=True)
    is_active = models.BooleanField(default=True)
    created_at = created_field()

    def __str__(self) -> str:
        return self.name


class UserManager(BaseUserManager["User"]):
    """Finds people by email; ``services.user_create`` makes them."""


class User(AbstractBaseUser):
    """A person who signs in by email. ``partner_id`` is set for staff of a partner cloud."""

    id = id_field("usr")
    email = models.EmailField(max_length=254, unique=True)
    name = models.CharField(max_length=120, blank=True)
    is_foundation_admin = models.BooleanField(default=False)
    is_active = models.BooleanField(default=True)
    partner_id = models.CharField(max_length=32, null=True, blank=True)
    created_at = created_field()

    USERNAME_FIELD = "email"
    REQUIRED_FIELDS: ClassVar[list[str]] = []
    objects: ClassVar[UserManager] = UserManager()

    class Meta:
        constraints: ClassVar = [
            models.CheckConstraint(condition=Q(email=Lower("email")), name="user_email_lower_case")
        ]

    def __str__(self) -> str:
        return self.email


class Role(models.TextChoices):
    """What a member may do: owners and members write, viewers read."""

    OWNER = "owner"
    MEMBER = "member"
    VIEWER = "viewer"


class Membership(models.Model):
    """A person's role in an organisation."""

    id = id_field("mem")
    tenant = models.ForeignKey(Tenant, models.PROTECT, related_name="memberships")
    user = models.ForeignKey(User, models.PROTECT, related_name="memberships")
    role = models.CharField(max_length=16, choices=Role.choices)
    created_at = created_field()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["tenant", "user"], name="membership_once"),
            models.CheckConstraint(condition=Q(role__in=Role.values), name="membership_role_known"),
        ]

    def __str__(self) -> str:
        return f"{self.user_id} {self.role} of {self.tenant_id}"


class Project(models.Model):
    """A named division of a tenant; API keys belong to one."""

    id = id_field("prj")
    tenant = models.ForeignKey(Tenant, models.PROTECT, related_name="projects")
    name = models.CharField(max_length=120)
    created_at = created_field()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["tenant", "name"], name="project_name_once_per_tenant")
        ]

    def __str__(self) -> str:
        return self.name


class KeyKind(models.TextChoices):
    """Who uses the key: a program, or the console's playground on a person's behalf."""

    API = "api"
    PLAYGROUND = "playground"


class ApiKey(models.Model):
    """A bearer secret, stored only as its SHA-256 ``digest``; ``display`` is safe to show."""

    id = id_field("key")
    tenant = models.ForeignKey(Tenant, models.PROTECT, related_name="api_keys")
    project = models.ForeignKey(Project, models.PROTECT, related_name="api_keys")
    name = models.CharField(max_length=120)
    display = models.CharField(max_length=32)
    digest = models.CharField(max_length=64, unique=True)
    kind = models.CharField(max_length=16, choices=KeyKind.choices, default=KeyKind.API)
    created_by = models.ForeignKey(User, models.PROTECT, null=True, related_name="+")
    created_at = created_field()
    expires_at = models.DateTimeField(null=True)
    revoked_at = models.DateTimeField(null=True)
    requests_per_minute = models.PositiveIntegerField(default=6000)
    max_concurrency = models.PositiveIntegerField(default=512)

    class Meta:
        indexes: ClassVar = [models.Index(F("tenant"), F("id").desc(), name="apikey_by_tenant")]
        constraints: ClassVar = [
            models.CheckConstraint(condition=Q(kind__in=KeyKind.values), name="apikey_kind_known"),
            models.CheckConstraint(
                condition=Q(requests_per_minute__gte=1, max_concurrency__gte=1), name="apikey_limits_positive"
            ),
        ]

    def __str__(self) -> str:
        return self.display


class AuditEntry(models.Model):
    """Who did what, append-only. ``tenant`` is null for acts of the foundation alone."""

    id = id_field("aud")
    tenant = models.ForeignKey(Tenant, models.PROTECT, null=True, related_name="+")
    actor = models.CharField(max_length=64)
    action = models.CharField(max_length=64)
    object_id = models.CharField(max_length=64)
    data = models.JSONField(default=dict)
    at = created_field()

    class Meta:
        indexes: ClassVar = [models.Index(F("tenant"), F("id").desc(), name="audit_by_tenant")]

    def __str__(self) -> str:
        return f"{self.actor} {self.action} {self.object_id}"


class IdempotentAnswer(models.Model):
    """The answer once given to a request with an ``Idempotency-Key``, encrypted, kept for a day."""

    tenant = models.ForeignKey(Tenant, models.PROTECT, related_name="+")
    actor = models.CharField(max_length=64)
    key = models.CharField(max_length=255)
    request_sha256 = models.CharField(max_length=64)
    answer = models.BinaryField()
    created_at = created_field()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["tenant", "actor", "key"], name="idempotency_key_once")
        ]

    def __str__(self) -> str:
        return f"{self.actor} {self.key}"


class SignInWindow(models.Model):
    """Sign-in attempts counted per subject (a digest of address and account) in one time window."""

    subject = models.CharField(primary_key=True, max_length=64)
    started_at = models.DateTimeField()
    attempts = models.PositiveIntegerField()

    def __str__(self) -> str:
        return f"{self.attempts} since {self.started_at:%H:%M:%S}"
