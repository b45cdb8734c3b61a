"""Writes about member clouds, their pools and offers. All of it runs in a system scope."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from core.clock import clock
from core.errors import not_found
from core.secrets import new_secret
from ledger.models import AccountKind
from ledger.services import account_ensure
from partners.models import EnrolmentToken, Offer, Partner, Pool, Worker, WorkerState
from partners.selectors import offer_in_force
from tenants.scope import nested_transaction

TOKEN_LIFETIME = timedelta(hours=24)


@dataclass(frozen=True)
class Prices:
    """Nano-dollars per 1M tokens."""

    input_nano_per_mtok: int
    cached_input_nano_per_mtok: int
    output_nano_per_mtok: int


def partner_ensure(*, slug: str, name: str, jurisdiction: str) -> Partner:
    """The partner with this slug, made or brought up to date, with its ledger account."""
    with nested_transaction():
        partner, _created = Partner.objects.get_or_create(
            slug=slug, defaults={"name": name, "jurisdiction": jurisdiction}
        )
        if (partner.name, partner.jurisdiction) != (name, jurisdiction):
            partner.name, partner.jurisdiction = name, jurisdiction
            partner.save(update_fields=["name", "jurisdiction"])
        account_ensure(kind=AccountKind.PARTNER, owner_id=partner.id)
    return partner


def pool_ensure(*, partner: Partner, slug: str, region: str, accelerator: str) -> Pool:
    """The partner's pool with this slug, made or brought up to date."""
    pool, _created = Pool.objects.get_or_create(
        partner=partner, slug=slug, defaults={"region": region, "accelerator": accelerator}
    )
    if (pool.region, pool.accelerator) != (region, accelerator):
        pool.region, pool.accelerator = region, accelerator
        pool.save(update_fields=["region", "accelerator"])
    return pool


def offer_ensure(*, partner: Partner, release_slug: str, prices: Prices) -> Offer:
    """The partner's offer with these prices from now on; nothing changes when it is in force already."""
    current = offer_in_force(partner_id=partner.id, release_slug=release_slug)
    if current is not None and _prices_of(current) == prices:
        return current
    return Offer.objects.create(
        partner=partner,
        release_slug=release_slug,
        input_nano_per_mtok=prices.input_nano_per_mtok,
        cached_input_nano_per_mtok=prices.cached_input_nano_per_mtok,
        output_nano_per_mtok=prices.output_nano_per_mtok,
    )


def _prices_of(offer: Offer) -> Prices:
    return Prices(offer.input_nano_per_mtok, offer.cached_input_nano_per_mtok, offer.output_nano_per_mtok)


def enrolment_token_create(*, pool: Pool, lifetime: timedelta = TOKEN_LIFETIME) -> str:
    """A fresh one-time token for the pool, in plain: it exists nowhere else. Unused older ones lapse."""
    EnrolmentToken.objects.filter(pool=pool, used_at__isnull=True).update(expires_at=clock.now())
    secret = new_secret("enrol")
    EnrolmentToken.objects.create(pool=pool, digest=secret.digest, expires_at=clock.now() + lifetime)
    return secret.plain


def worker_state_set(*, worker_id: str, state: WorkerState) -> Worker:
    """Drain, retire or reactivate a worker. Raises ApiError 404. The caller publishes a new snapshot."""
    worker = Worker.objects.filter(id=worker_id).first()
    if worker is None:
        raise not_found(f"There is no worker {worker_id!r}.")
    worker.state = state
    worker.save(update_fields=["state"])
    return worker
