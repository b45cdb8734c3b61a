"""Paying in for a tenant: the transfer, and who did it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from core.errors import ApiError
from ledger.selectors import tenant_balance
from ledger.services import tenant_topup
from tenants.models import AuditEntry
from tenants.scope import system_scope
from tenants.selectors import tenant_get
from tenants.services import audit_record

ACTION = "tenant.topup"


@dataclass(frozen=True)
class Topup:
    """A transfer that paid in, and the balance after it."""

    id: str
    tenant_id: str
    amount_nano: int
    reference: str
    posted_at: datetime
    balance_nano: int


def topup(*, tenant_id: str, amount_nano: int, reference: str, idempotency_key: str, actor: str) -> Topup:
    """Pay in once per key. Raises ApiError 404 for no such tenant, 409 for a key with another content."""
    if amount_nano <= 0:
        raise ApiError(422, "amount must be more than 0.", code="invalid_value", param="amount")
    with system_scope():
        tenant = tenant_get(tenant_id)
        transfer = tenant_topup(
            tenant_id=tenant.id, amount_nano=amount_nano, idempotency_key=idempotency_key, reference=reference
        )
        known = AuditEntry.objects.filter(tenant=tenant, action=ACTION, object_id=transfer.id)
        if not known.exists():
            audit_record(
                actor=actor,
                action=ACTION,
                object_id=transfer.id,
                tenant_id=tenant.id,
                data={"amount_nano": amount_nano, "reference": reference},
            )
        balance = tenant_balance(tenant_id=tenant.id)
    return Topup(
        id=transfer.id,
        tenant_id=tenant.id,
        amount_nano=transfer.amount_nano,
        reference=transfer.reference,
        posted_at=transfer.posted_at,
        balance_nano=balance.balance_nano,
    )
