"""The record of one served request: what the ledger's two usage transfers are for."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import F, Q

from tenants.fields import created_field


class UsageRecord(models.Model):
    """Counts, prices at admission, the charge, and both witnesses' word for it. Written once, never edited.

    ``charge_nano`` = ``share_nano`` (to the partner) + ``levy_nano`` (to the foundation).
    """

    request_id = models.CharField(primary_key=True, max_length=32)
    tenant_id = models.CharField(max_length=32)
    project_id = models.CharField(max_length=32)
    api_key_id = models.CharField(max_length=32)
    partner_id = models.CharField(max_length=32)
    pool_id = models.CharField(max_length=32)
    worker_id = models.CharField(max_length=32)
    release_id = models.CharField(max_length=32)
    offer_id = models.CharField(max_length=32)
    model = models.CharField(max_length=63)
    endpoint = models.CharField(max_length=63)
    prompt_tokens = models.BigIntegerField()
    cached_tokens = models.BigIntegerField()
    completion_tokens = models.BigIntegerField()
    finish_reason = models.CharField(max_length=32)
    input_nano_per_mtok = models.BigIntegerField()
    cached_input_nano_per_mtok = models.BigIntegerField()
    output_nano_per_mtok = models.BigIntegerField()
    levy_ppm = models.BigIntegerField()
    share_nano = models.BigIntegerField()
    levy_nano = models.BigIntegerField()
    charge_nano = models.BigIntegerField()
    witness = models.CharField(max_length=16)
    received_at = models.DateTimeField()
    first_token_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField()
    posted_at = created_field()
    receipt = models.JSONField()
    decision = models.JSONField()

    class Meta:
        indexes: ClassVar = [
            models.Index(F("tenant_id"), F("finished_at").desc(), name="usage_by_tenant"),
            models.Index(F("partner_id"), F("finished_at").desc(), name="usage_by_partner"),
            models.Index(F("tenant_id"), F("request_id").desc(), name="usage_bill"),
        ]
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=Q(charge_nano=F("share_nano") + F("levy_nano")),
                name="usage_charge_is_share_and_levy",
            ),
            models.CheckConstraint(
                condition=Q(
                    cached_tokens__gte=0,
                    prompt_tokens__gte=F("cached_tokens"),
                    completion_tokens__gte=0,
                    share_nano__gte=0,
                    levy_nano__gte=0,
                ),
                name="usage_counts_not_negative",
            ),
        ]

    def __str__(self) -> str:
        return self.request_id
