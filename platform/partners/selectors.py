"""Reads about member clouds, in the caller's scope."""

from __future__ import annotations

from collections.abc import Sequence

from core.clock import clock
from partners.models import Offer, Partner, Pool, Worker, WorkerState


def partner_list() -> Sequence[Partner]:
    """All partners, oldest first."""
    return list(Partner.objects.order_by("id"))


def pool_list() -> Sequence[Pool]:
    """All pools with their partners, oldest first."""
    return list(Pool.objects.select_related("partner").order_by("id"))


def worker_list(*, states: Sequence[WorkerState] = tuple(WorkerState)) -> Sequence[Worker]:
    """Workers in these states with pool and partner, oldest first. System scope."""
    return list(Worker.objects.filter(state__in=states).select_related("pool__partner").order_by("id"))


def offer_in_force(*, partner_id: str, release_slug: str) -> Offer | None:
    """The newest of the partner's offers for the release whose time has come."""
    return (
        Offer.objects.filter(partner_id=partner_id, release_slug=release_slug, effective_at__lte=clock.now())
        .order_by("-effective_at", "-id")
        .first()
    )


def offers_in_force() -> Sequence[Offer]:
    """For each partner and release the offer that counts now, with its partner."""
    return list(
        Offer.objects.filter(effective_at__lte=clock.now())
        .order_by("partner_id", "release_slug", "-effective_at", "-id")
        .distinct("partner_id", "release_slug")
        .select_related("partner")
    )
