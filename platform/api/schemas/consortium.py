"""Partners, pools, workers, releases and tenants as foundation admins see them."""

from __future__ import annotations

from datetime import datetime

from api.schemas.base import Out


class OfferOut(Out):
    """A price in force, nano-dollars per 1M tokens."""

    id: str
    release: str
    input_nano_per_mtok: int
    cached_input_nano_per_mtok: int
    output_nano_per_mtok: int
    effective_at: datetime


class PartnerOut(Out):
    """A member cloud and its prices in force."""

    id: str
    slug: str
    name: str
    jurisdiction: str
    offers: list[OfferOut]


class PoolOut(Out):
    """A pool."""

    id: str
    partner_id: str
    slug: str
    region: str
    accelerator: str


class WorkerOut(Out):
    """An enrolled worker."""

    id: str
    pool_id: str
    partner_id: str
    name: str
    endpoint: str
    public_key: str
    release: str
    release_digest: str
    max_running: int
    state: str
    enrolled_at: datetime


class ReleaseOut(Out):
    """A registered release."""

    id: str
    slug: str
    digest: str
    files: int
    max_model_len: int
    vocab_size: int
    state: str
    created_at: datetime


class TenantOut(Out):
    """A tenant, as the foundation sees it."""

    id: str
    name: str
    slug: str
    is_active: bool
    balance_nano: int
    created_at: datetime


class PartnerPage(Out):
    """Partners."""

    data: list[PartnerOut]
    next_cursor: str | None


class PoolPage(Out):
    """Pools."""

    data: list[PoolOut]
    next_cursor: str | None


class WorkerPage(Out):
    """Workers."""

    data: list[WorkerOut]
    next_cursor: str | None


class ReleasePage(Out):
    """Releases."""

    data: list[ReleaseOut]
    next_cursor: str | None


class TenantPage(Out):
    """Tenants."""

    data: list[TenantOut]
    next_cursor: str | None
