"""A consortium in PostgreSQL, made by the services that make real ones."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import redis

from core.ids import new_id
from governance.charter import charter_parse
from governance.services import charter_adopt
from ledger.models import AccountKind
from ledger.services import account_ensure, tenant_topup
from partners.models import Pool, Worker
from partners.services import Prices, offer_ensure, partner_ensure, pool_ensure
from releases.models import Release
from tenants.models import ApiKey, Project, Tenant
from tenants.scope import system_scope, tenant_scope
from tenants.services import api_key_create

CHARTER = """
version: 1
consortium: Test
foundation: Test Foundation
levy_ppm: 50000
policy: { name: p1, price_weight: 1, load_weight: 2, half_cost_ppm: 100000 }
partners:
  - slug: north
    name: North
    jurisdiction: SE
    offers: [{ release: nano, input: "0.10", cached_input: "0.02", output: "0.30" }]
    pools: [{ slug: north-1, region: no-1, accelerator: cpu }]
"""


@dataclass(frozen=True)
class Consortium:
    """One partner with a pool and an offer for the release ``nano``; one tenant with a dollar."""

    client: redis.Redis
    tenant: Tenant
    project: Project
    pool: Pool
    release: Release

    def worker(self, **changes: object) -> Worker:
        """Enrol a worker of the release."""
        fields: dict[str, object] = {
            "pool": self.pool,
            "name": "north-worker",
            "endpoint": "http://127.0.0.1:9",
            "public_key": new_id("wrk"),
            "release_digest": self.release.digest,
            "release_slug": self.release.slug,
            "capacity": {},
            "max_running": 8,
            **changes,
        }
        with system_scope():
            return Worker.objects.create(**fields)

    def key(self, *, expires_at: datetime | None = None) -> ApiKey:
        """Make an API key; nothing is published."""
        with tenant_scope(self.tenant.id):
            key, _secret = api_key_create(
                tenant_id=self.tenant.id,
                project_id=self.project.id,
                name="key",
                actor="usr_x",
                expires_at=expires_at,
                requests_per_minute=60,
                max_concurrency=3,
            )
        return key

    def topup(self, amount_nano: int) -> None:
        """Pay money in; nothing is published."""
        with system_scope():
            tenant_topup(
                tenant_id=self.tenant.id,
                amount_nano=amount_nano,
                idempotency_key=new_id("req"),
                reference="test",
            )


def consortium_make(client: redis.Redis) -> Consortium:
    """See ``Consortium``."""
    with system_scope():
        charter_adopt(document=charter_parse(CHARTER))
        partner = partner_ensure(slug="north", name="North", jurisdiction="SE")
        pool = pool_ensure(partner=partner, slug="north-1", region="no-1", accelerator="cpu")
        prices = Prices(100_000_000, 20_000_000, 300_000_000)
        offer_ensure(partner=partner, release_slug="nano", prices=prices)
        release = Release.objects.create(
            slug="nano", digest="a" * 64, manifest={}, artifact_dir="x", max_model_len=512, vocab_size=4096
        )
        tenant = Tenant.objects.create(name="Startup", slug="startup")
        project = Project.objects.create(tenant=tenant, name="app")
        account_ensure(kind=AccountKind.FOUNDATION, owner_id="foundation")
        made = Consortium(client=client, tenant=tenant, project=project, pool=pool, release=release)
    made.topup(1_000_000_000)
    return made
