"""What a foundation admin sees of the consortium: partners, pools with live load, releases."""

from __future__ import annotations

from dataclasses import dataclass

from django.http import HttpResponse
from django.views.decorators.http import require_safe

from console.access import foundation_page
from console.frame import Visit
from console.live import worker_loads
from partners.models import Offer, Partner, Pool, Worker
from partners.selectors import offers_in_force, partner_list, pool_list, worker_list
from releases.models import Release
from releases.selectors import release_list
from routing.snapshot import WorkerLoad


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
