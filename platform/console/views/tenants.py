"""Tenants and their money, for foundation admins."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime

from django.contrib import messages
from django.db import transaction
from django.http import HttpResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_POST, require_safe

from console.access import foundation_page
from console.frame import Visit
from console.publishing import account_publish
from core.errors import ApiError
from core.money import dollars_to_nano, format_dollars
from ledger.selectors import tenant_balance
from ledger.services import tenant_topup
from tenants.models import AuditEntry, Tenant
from tenants.scope import SYSTEM
from tenants.selectors import tenant_get
from tenants.services import audit_record

_TOPUP_MAX_DOLLARS = 1_000_000
_TOPUP_ACTION = "tenant.topup"
_ROWS_MAX = 500


@dataclass(frozen=True, slots=True)
class TenantRow:
    """A tenant with its money; the key makes a top-up sent twice count once."""

    id: str
    name: str
    is_active: bool
    created_at: datetime
    balance_nano: int
    idempotency_key: str


@require_safe
@foundation_page
def tenants(visit: Visit) -> HttpResponse:
    """Who buys, and what they have left."""
    return visit.page("console/foundation/tenants.html", {"tenants": _rows()})


@require_POST
@foundation_page
def topup(visit: Visit, tenant_id: str) -> HttpResponse:
    """Add money a tenant paid."""
    tenant = tenant_get(tenant_id)
    try:
        amount_nano = _amount_nano(visit.request.POST.get("amount", ""))
        _topup(visit, tenant, amount_nano, visit.request.POST.get("idempotency_key", ""))
    except ApiError as error:
        context = {"tenants": _rows(), "problem": error.message}
        return visit.page("console/foundation/tenants.html", context, status=error.status)
    messages.success(visit.request, f"{format_dollars(amount_nano)} added to {tenant.name}.", "good")
    return redirect("console:tenants")


def _topup(visit: Visit, tenant: Tenant, amount_nano: int, idempotency_key: str) -> None:
    if not 8 <= len(idempotency_key) <= 100:
        raise ApiError(422, "The form is incomplete. Reload the page and try again.")
    transfer = tenant_topup(
        tenant_id=tenant.id,
        amount_nano=amount_nano,
        idempotency_key=idempotency_key,
        reference=f"console:{visit.user.id}",
    )
    transaction.on_commit(lambda: account_publish(tenant.id), using=SYSTEM)
    if AuditEntry.objects.filter(action=_TOPUP_ACTION, object_id=transfer.id).exists():
        return
    audit_record(
        actor=visit.user.id,
        action=_TOPUP_ACTION,
        object_id=transfer.id,
        tenant_id=tenant.id,
        data={"amount_nano": amount_nano},
    )


def _rows() -> list[TenantRow]:
    return [
        TenantRow(
            id=tenant.id,
            name=tenant.name,
            is_active=tenant.is_active,
            created_at=tenant.created_at,
            balance_nano=tenant_balance(tenant_id=tenant.id).balance_nano,
            idempotency_key=secrets.token_hex(16),
        )
        for tenant in Tenant.objects.order_by("-id")[:_ROWS_MAX]
    ]


def _amount_nano(text: str) -> int:
    try:
        amount_nano = dollars_to_nano(text.strip().removeprefix("$"))
    except ValueError as error:
        raise ApiError(422, "Write the amount in dollars, such as 25.00.", param="amount") from error
    if not 0 < amount_nano <= dollars_to_nano(_TOPUP_MAX_DOLLARS):
        raise ApiError(422, "An amount lies above $0 and up to $1,000,000.", param="amount")
    return amount_nano
