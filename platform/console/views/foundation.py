"""What a foundation admin sees: partners, pools with live load, releases, tenants with top-up."""

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
from console.live import worker_loads
from console.publishing import account_publish
from core.errors import ApiError
from core.money import dollars_to_nano, format_dollars
from ledger.selectors import tenant_balance
from ledger.services import tenant_topup
from partners.models import Offer, Partner, Pool, Worker
from partners.selectors import offers_in_force, partner_list, pool_list, worker_list
from releases.models import Release
from releases.selectors import release_list
from routing.snapshot import WorkerLoad
from tenants.models import Tenant
from tenants.scope import SYSTEM
from tenants.selectors import tenant_get
from tenants.services import audit_record

_TOPUP_MAX_DOLLARS = 1_000_000


@dataclass(frozen=True, slots=True)
class PartnerRow:
    """A partner with its offers in force."""

    partner: Partner
    offers: tuple[Offer, ...]


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """A worker with its last heartbeat, if one came in the last seconds."""

    worker: Worker
    load: WorkerLoad | None


@dataclass(frozen=True, slots=True)
class PoolRow:
    """A pool with its workers."""

    pool: Pool
    workers: tuple[WorkerRow, ...]


@dataclass(frozen=True, slots=True)
class ReleaseRow:
    """A release with its files by path."""

    release: Release
    files: tuple[tuple[str, str], ...]


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
def partners(visit: Visit) -> HttpResponse:
    """Member clouds and their prices."""
    offers = offers_in_force()
    rows = [
        PartnerRow(partner, tuple(offer for offer in offers if offer.partner_id == partner.id))
        for partner in partner_list()
    ]
    return visit.page("console/foundation/partners.html", {"partners": rows})


@require_safe
@foundation_page
def pools(visit: Visit) -> HttpResponse:
    """Pools and what their workers do right now."""
    workers = worker_list()
    loads = worker_loads([worker.id for worker in workers])
    rows = [
        PoolRow(
            pool,
            tuple(
                WorkerRow(worker, (loads or {}).get(worker.id))
                for worker in workers
                if worker.pool_id == pool.id
            ),
        )
        for pool in pool_list()
    ]
    context = {"pools": rows, "live_state": loads is not None}
    return visit.page("console/foundation/pools.html", context)


@require_safe
@foundation_page
def releases(visit: Visit) -> HttpResponse:
    """The model registry."""
    rows = [ReleaseRow(release, tuple(sorted(release.manifest.items()))) for release in release_list()]
    return visit.page("console/foundation/releases.html", {"releases": rows})


@require_safe
@foundation_page
def tenants(visit: Visit) -> HttpResponse:
    """Who buys, and what they have left."""
    return visit.page("console/foundation/tenants.html", {"tenants": _tenant_rows()})


@require_POST
@foundation_page
def topup(visit: Visit, tenant_id: str) -> HttpResponse:
    """Add money a tenant paid."""
    tenant = tenant_get(tenant_id)
    try:
        amount_nano = _amount_nano(visit.request.POST.get("amount", ""))
        transfer = tenant_topup(
            tenant_id=tenant.id,
            amount_nano=amount_nano,
            idempotency_key=visit.request.POST.get("idempotency_key", "")[:100],
            reference=f"console:{visit.user.id}",
        )
    except ApiError as error:
        context = {"tenants": _tenant_rows(), "problem": error.message}
        return visit.page("console/foundation/tenants.html", context, status=error.status)
    audit_record(
        actor=visit.user.id,
        action="tenant.topup",
        object_id=transfer.id,
        tenant_id=tenant.id,
        data={"amount_nano": amount_nano},
    )
    transaction.on_commit(lambda: account_publish(tenant.id), using=SYSTEM)
    messages.success(visit.request, f"{format_dollars(amount_nano)} added to {tenant.name}.", "good")
    return redirect("console:tenants")


def _tenant_rows() -> list[TenantRow]:
    return [
        TenantRow(
            id=tenant.id,
            name=tenant.name,
            is_active=tenant.is_active,
            created_at=tenant.created_at,
            balance_nano=tenant_balance(tenant_id=tenant.id).balance_nano,
            idempotency_key=secrets.token_hex(16),
        )
        for tenant in Tenant.objects.order_by("id")
    ]


def _amount_nano(text: str) -> int:
    try:
        amount_nano = dollars_to_nano(text.strip().removeprefix("$"))
    except ValueError as error:
        raise ApiError(422, "Write the amount in dollars, such as 25.00.", param="amount") from error
    if not 0 < amount_nano <= dollars_to_nano(_TOPUP_MAX_DOLLARS):
        raise ApiError(422, "An amount lies above $0 and up to $1,000,000.", param="amount")
    return amount_nano
