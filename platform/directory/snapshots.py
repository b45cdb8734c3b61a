"""The routing snapshot: policy, models, and workers with the price that is in force."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from django.db import connections

from billing.rating import Price
from core import redis_keys
from core.clock import clock
from directory.redis_client import redis_client
from governance.charter import CharterDocument
from governance.selectors import charter_in_force
from partners.models import Offer, Worker, WorkerState
from partners.selectors import offers_in_force, worker_list
from releases.models import Release
from releases.selectors import releases_available
from routing.snapshot import Model, Policy, Snapshot, WorkerEntry
from tenants.scope import SYSTEM, system_scope

_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(Snapshot)
_LOCK = 7_300_001  # any constant: publishers of snapshots wait for each other in PostgreSQL


def publish_snapshot() -> bool:
    """Publish what is committed now; False when Redis holds just that already, or no charter is adopted.

    Publishers take turns, so the one that read last writes last.
    """
    with system_scope():
        with connections[SYSTEM].cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
        fresh = snapshot_build()
        if fresh is None:
            return False
        client = redis_client()
        known = snapshot_read(client.get(redis_keys.SNAPSHOT))
        if known is not None:
            fresh = msgspec.structs.replace(fresh, version=max(known.version + 1, fresh.version))
            if _content(known) == _content(fresh):
                return False
        client.set(redis_keys.SNAPSHOT, _ENCODER.encode(fresh))
        return True


def snapshot_read(raw: bytes | str | None) -> Snapshot | None:
    """The snapshot in ``raw``; None when there is none, or one of a shape this version does not know."""
    if raw is None:
        return None
    try:
        return _DECODER.decode(raw)
    except msgspec.DecodeError:
        return None


def snapshot_build() -> Snapshot | None:
    """The snapshot of what this scope sees; None before a charter is adopted.

    A worker is in it when it is not retired, serves an available release (its very digest), and its partner
    has an offer in force for that release.
    """
    charter = charter_in_force()
    if charter is None:
        return None
    releases = {release.slug: release for release in releases_available()}
    offers = {(offer.partner_id, offer.release_slug): offer for offer in offers_in_force()}
    workers = worker_list(states=(WorkerState.ACTIVE, WorkerState.DRAINING))
    now_ms = clock.now_ms()
    entries = (_entry(worker, charter.document, releases, offers) for worker in workers)
    return Snapshot(
        version=now_ms,
        published_at_ms=now_ms,
        charter_digest=charter.digest,
        policy=msgspec.convert(charter.document.policy, Policy, from_attributes=True),
        models=tuple(_model(release) for release in releases.values()),
        workers=tuple(entry for entry in entries if entry is not None),
    )


def _model(release: Release) -> Model:
    return Model(
        name=release.slug,
        release_id=release.id,
        release_digest=release.digest,
        max_model_len=release.max_model_len,
        created=int(release.created_at.timestamp()),
        vocab_size=release.vocab_size,
    )


def _entry(
    worker: Worker,
    charter: CharterDocument,
    releases: Mapping[str, Release],
    offers: Mapping[tuple[str, str], Offer],
) -> WorkerEntry | None:
    partner = worker.pool.partner
    release = releases.get(worker.release_slug)
    offer = offers.get((partner.id, worker.release_slug))
    if release is None or release.digest != worker.release_digest or offer is None:
        return None
    return WorkerEntry(
        worker_id=worker.id,
        pool_id=worker.pool_id,
        partner_id=partner.id,
        partner_slug=partner.slug,
        region=worker.pool.region,
        model=worker.release_slug,
        release_digest=worker.release_digest,
        endpoint=worker.endpoint,
        public_key=worker.public_key,
        max_running=worker.max_running,
        state=worker.state,
        price=Price(
            offer_id=offer.id,
            input_nano_per_mtok=offer.input_nano_per_mtok,
            cached_input_nano_per_mtok=offer.cached_input_nano_per_mtok,
            output_nano_per_mtok=offer.output_nano_per_mtok,
            levy_ppm=charter.levy_ppm,
        ),
    )


def _content(snapshot: Snapshot) -> Snapshot:
    return msgspec.structs.replace(snapshot, version=0, published_at_ms=0)
