"""What foundation admins may list."""

from __future__ import annotations

from collections.abc import Sequence

from django.http import HttpRequest
from ninja import Router

from api.auth import AUTH, actor_of
from api.paging import Cursor, Limit, page_of
from api.schemas.consortium import (
    OfferOut,
    PartnerOut,
    PartnerPage,
    PoolOut,
    PoolPage,
    ReleaseOut,
    ReleasePage,
    TenantOut,
    TenantPage,
    WorkerOut,
    WorkerPage,
)
from ledger.selectors import tenant_balances_nano
from partners.models import Offer, Partner, Pool, Worker
from partners.selectors import offers_in_force
from releases.models import Release
from tenants.models import Tenant
from tenants.scope import system_scope

router = Router(tags=["foundation"], auth=AUTH)


@router.get("/admin/partners", response=PartnerPage, summary="List partners")
def partners_list(request: HttpRequest, limit: Limit = 50, cursor: Cursor = None) -> PartnerPage:
    """With the offers in force."""
    actor_of(request).require_foundation_admin()
    with system_scope():
        offers = offers_in_force()
        data, next_cursor = page_of(
            Partner.objects.all(), lambda row: _partner(row, offers), limit=limit, cursor=cursor
        )
    return PartnerPage(data=list(data), next_cursor=next_cursor)


@router.get("/admin/pools", response=PoolPage, summary="List pools")
def pools_list(request: HttpRequest, limit: Limit = 50, cursor: Cursor = None) -> PoolPage:
    """Newest first."""
    actor_of(request).require_foundation_admin()
    with system_scope():
        data, next_cursor = page_of(Pool.objects.all(), _pool, limit=limit, cursor=cursor)
    return PoolPage(data=list(data), next_cursor=next_cursor)


@router.get("/admin/workers", response=WorkerPage, summary="List workers")
def workers_list(request: HttpRequest, limit: Limit = 50, cursor: Cursor = None) -> WorkerPage:
    """Newest first, retired ones included."""
    actor_of(request).require_foundation_admin()
    with system_scope():
        rows = Worker.objects.select_related("pool")
        data, next_cursor = page_of(rows, _worker, limit=limit, cursor=cursor)
    return WorkerPage(data=list(data), next_cursor=next_cursor)


@router.get("/admin/releases", response=ReleasePage, summary="List releases")
def releases_list(request: HttpRequest, limit: Limit = 50, cursor: Cursor = None) -> ReleasePage:
    """Newest first, retired ones included."""
    actor_of(request).require_foundation_admin()
    with system_scope():
        data, next_cursor = page_of(Release.objects.all(), _release, limit=limit, cursor=cursor)
    return ReleasePage(data=list(data), next_cursor=next_cursor)


@router.get("/admin/tenants", response=TenantPage, summary="List tenants")
def tenants_list(request: HttpRequest, limit: Limit = 50, cursor: Cursor = None) -> TenantPage:
    """Newest first, with their balances."""
    actor_of(request).require_foundation_admin()
    with system_scope():
        rows, next_cursor = page_of(Tenant.objects.all(), lambda row: row, limit=limit, cursor=cursor)
        balances = tenant_balances_nano(tenant_ids=[row.id for row in rows])
    data = [_tenant(row, balances.get(row.id, 0)) for row in rows]
    return TenantPage(data=data, next_cursor=next_cursor)


def _partner(partner: Partner, offers: Sequence[Offer]) -> PartnerOut:
    return PartnerOut(
        id=partner.id,
        slug=partner.slug,
        name=partner.name,
        jurisdiction=partner.jurisdiction,
        offers=[_offer(offer) for offer in offers if offer.partner_id == partner.id],
    )


def _offer(offer: Offer) -> OfferOut:
    return OfferOut(
        id=offer.id,
        release=offer.release_slug,
        input_nano_per_mtok=offer.input_nano_per_mtok,
        cached_input_nano_per_mtok=offer.cached_input_nano_per_mtok,
        output_nano_per_mtok=offer.output_nano_per_mtok,
        effective_at=offer.effective_at,
    )


def _pool(pool: Pool) -> PoolOut:
    return PoolOut(
        id=pool.id,
        partner_id=pool.partner_id,
        slug=pool.slug,
        region=pool.region,
        accelerator=pool.accelerator,
    )


def _worker(worker: Worker) -> WorkerOut:
    return WorkerOut(
        id=worker.id,
        pool_id=worker.pool_id,
        partner_id=worker.pool.partner_id,
        name=worker.name,
        endpoint=worker.endpoint,
        public_key=worker.public_key,
        release=worker.release_slug,
        release_digest=worker.release_digest,
        max_running=worker.max_running,
        state=worker.state,
        enrolled_at=worker.enrolled_at,
    )


def _release(release: Release) -> ReleaseOut:
    return ReleaseOut(
        id=release.id,
        slug=release.slug,
        digest=release.digest,
        files=len(release.manifest),
        max_model_len=release.max_model_len,
        vocab_size=release.vocab_size,
        state=release.state,
        created_at=release.created_at,
    )


def _tenant(tenant: Tenant, balance_nano: int) -> TenantOut:
    return TenantOut(
        id=tenant.id,
        name=tenant.name,
        slug=tenant.slug,
        is_active=tenant.is_active,
        balance_nano=balance_nano,
        created_at=tenant.created_at,
    )
