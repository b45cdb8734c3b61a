"""Rows of the member clouds."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import F, Q

from tenants.fields import created_field, id_field, now


class Partner(models.Model):
    """A member cloud."""

    id = id_field("par")
    slug = models.SlugField(max_length=63, unique=True)
    name = models.CharField(max_length=120)
    jurisdiction = models.CharField(max_length=2)
    created_at = created_field()

    def __str__(self) -> str:
        return self.name


class Pool(models.Model):
    """Workers of one partner: one region, one kind of accelerator."""

    id = id_field("pol")
    partner = models.ForeignKey(Partner, models.PROTECT, related_name="pools")
    slug = models.SlugField(max_length=63)
    region = models.CharField(max_length=63)
    accelerator = models.CharField(max_length=63)
    created_at = created_field()

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["partner", "slug"], name="pool_once_per_partner")
        ]

    def __str__(self) -> str:
        return self.slug


class WorkerState(models.TextChoices):
    """``draining`` finishes what it has and gets nothing new; ``retired`` is gone for good."""

    ACTIVE = "active"
    DRAINING = "draining"
    RETIRED = "retired"


class Worker(models.Model):
    """An enrolled engine process, known by its Ed25519 ``public_key`` (base64 of 32 bytes)."""

    id = id_field("wrk")
    pool = models.ForeignKey(Pool, models.PROTECT, related_name="workers")
    name = models.CharField(max_length=120)
    endpoint = models.CharField(max_length=200)
    public_key = models.CharField(max_length=64, unique=True)
    release_digest = models.CharField(max_length=64)
    release_slug = models.CharField(max_length=63)
    capacity = models.JSONField()
    max_running = models.PositiveIntegerField()
    state = models.CharField(max_length=16, choices=WorkerState.choices, default=WorkerState.ACTIVE)
    enrolled_at = models.DateTimeField(default=now)

    class Meta:
        indexes: ClassVar = [models.Index(F("state"), name="worker_by_state")]
        constraints: ClassVar = [
            models.CheckConstraint(condition=Q(state__in=WorkerState.values), name="worker_state_known"),
            models.CheckConstraint(condition=Q(max_running__gte=1), name="worker_runs_something"),
        ]

    def __str__(self) -> str:
        return self.name


class EnrolmentToken(models.Model):
    """Lets one worker into a pool, once; stored only as its SHA-256 ``digest``.

    ``nonce`` belongs to the newest challenge given out for it: the proof must answer that one.
    """

    id = id_field("enr")
    pool = models.ForeignKey(Pool, models.PROTECT, related_name="enrolment_tokens")
    digest = models.CharField(max_length=64, unique=True)
    created_at = created_field()
    expires_at = models.DateTimeField()
    nonce = models.CharField(max_length=64, null=True)
    used_at = models.DateTimeField(null=True)
    used_by = models.ForeignKey(Worker, models.PROTECT, null=True, related_name="+")

    class Meta:
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=Q(used_at__isnull=True, used_by__isnull=True)
                | Q(used_at__isnull=False, used_by__isnull=False),
                name="enrolment_used_by_someone",
            )
        ]

    def __str__(self) -> str:
        return self.id


class Offer(models.Model):
    """A partner's price for a release from ``effective_at`` on: immutable, superseded by a later one."""

    id = id_field("off")
    partner = models.ForeignKey(Partner, models.PROTECT, related_name="offers")
    release_slug = models.CharField(max_length=63)
    input_nano_per_mtok = models.BigIntegerField()
    cached_input_nano_per_mtok = models.BigIntegerField()
    output_nano_per_mtok = models.BigIntegerField()
    effective_at = models.DateTimeField(default=now)

    class Meta:
        indexes: ClassVar = [
            models.Index(F("partner"), F("release_slug"), F("effective_at").desc(), name="offer_in_force")
        ]
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=Q(
                    input_nano_per_mtok__gte=0, cached_input_nano_per_mtok__gte=0, output_nano_per_mtok__gte=0
                ),
                name="offer_price_not_negative",
            )
        ]

    def __str__(self) -> str:
        return f"{self.partner_id} {self.release_slug}"
