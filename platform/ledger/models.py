"""Rows of the ledger. Only this package touches them; the database keeps the invariants.

``balance_nano`` = credits − debits, kept by a statement-level trigger on transfers (see the first migration).
The sum over all accounts is 0 at any time. A tenant's balance is the money it has left.
"""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import F, Q

from tenants.fields import created_field, id_field


class AccountKind(models.TextChoices):
    """Whose money: a tenant's, a partner's, the foundation's, or the world outside (may go negative)."""

    TENANT = "tenant"
    PARTNER = "partner"
    FOUNDATION = "foundation"
    EXTERNAL = "external"


class Account(models.Model):
    """One owner's money. ``version`` grows with every change of the balance."""

    id = id_field("acc")
    kind = models.CharField(max_length=16, choices=AccountKind.choices)
    owner_id = models.CharField(max_length=64)
    tenant_id = models.CharField(max_length=32, null=True)
    balance_nano = models.BigIntegerField(default=0)
    version = models.BigIntegerField(default=0)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["kind", "owner_id"], name="account_once_per_owner"),
            models.CheckConstraint(condition=Q(kind__in=AccountKind.values), name="account_kind_known"),
            models.CheckConstraint(
                condition=Q(kind="tenant", tenant_id__isnull=False, tenant_id=F("owner_id"))
                | (~Q(kind="tenant") & Q(tenant_id__isnull=True)),
                name="account_tenant_matches_kind",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.owner_id}"


class TransferKind(models.TextChoices):
    """Why the money moved."""

    TOPUP = "topup"
    GRANT = "grant"
    USAGE_SHARE = "usage_share"
    USAGE_LEVY = "usage_levy"
    ADJUSTMENT = "adjustment"


class Transfer(models.Model):
    """``amount_nano`` moved from the debited to the credited account: one row, so always balanced."""

    id = id_field("trf")
    debit_account = models.ForeignKey(Account, models.PROTECT, related_name="debits")
    credit_account = models.ForeignKey(Account, models.PROTECT, related_name="credits")
    amount_nano = models.BigIntegerField()
    kind = models.CharField(max_length=16, choices=TransferKind.choices)
    reference = models.CharField(max_length=200)
    idempotency_key = models.CharField(max_length=200, unique=True)
    tenant_id = models.CharField(max_length=32, null=True)
    posted_at = created_field()

    class Meta:
        indexes: ClassVar = [
            models.Index(F("tenant_id"), F("posted_at").desc(), name="transfer_by_tenant"),
        ]
        constraints: ClassVar = [
            models.CheckConstraint(condition=Q(amount_nano__gt=0), name="transfer_amount_positive"),
            models.CheckConstraint(
                condition=~Q(debit_account=F("credit_account")), name="transfer_between_two_accounts"
            ),
            models.CheckConstraint(condition=Q(kind__in=TransferKind.values), name="transfer_kind_known"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.amount_nano} nano"
