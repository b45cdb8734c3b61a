"""A small consortium with two tenants, served requests with receipts that verify, and signed-in clients."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
from django.test import Client

from billing.rating import Price, charge_for
from core.clock import clock
from core.ids import new_id
from core.money import dollars_to_nano
from core.signing import SigningKey, signing_key_load
from inference.messages import GENESIS_HASH, JournalEntry, SignedEntry
from ledger.services import tenant_grant
from metering.models import UsageRecord
from partners.models import Partner, Pool, Worker
from partners.services import Prices, offer_ensure, partner_ensure, pool_ensure
from releases.models import Release
from routing.decide import decide, digest_of
from routing.records import Constraints, Decision, WorkerStatus
from routing.snapshot import Model, Policy, Snapshot, WorkerEntry
from tenants.models import Project, Role, Tenant, User
from tenants.scope import system_scope, tenant_scope
from tenants.services import membership_add, project_create, tenant_create, user_create
from transparency.receipts import Receipt, Statement, receipt_countersign

PASSWORD = "correct horse battery"
LEVY_PPM = 50_000
PARTNERS = (
    ("huawei", "Huawei Cloud", "0.10"),
    ("tencent", "Tencent Cloud", "0.12"),
    ("alibaba", "Alibaba Cloud", "0.14"),
)
MODEL = "tokenworks-nano"


@dataclass(frozen=True)
class World:
    """Rows the tests start from; ``keys`` sign as the workers, ``gateway_key`` as the gateway."""

    tenant: Tenant
    other_tenant: Tenant
    project: Project
    other_project: Project
    owner: User
    viewer: User
    stranger: User
    admin: User
    partners: tuple[Partner, ...]
    workers: tuple[Worker, ...]
    release: Release
    keys: dict[str, SigningKey]
    gateway_key: SigningKey

    @staticmethod
    def client_of(user: User) -> Client:
        """A browser in which ``user`` is signed in."""
        client = Client()
        client.force_login(user)
        return client

    def person(self, email: str, role: Role = Role.OWNER) -> User:
        """One more member of the demo tenant."""
        with system_scope():
            user = user_create(email=email, password=PASSWORD)
            membership_add(tenant_id=self.tenant.id, user_id=user.id, role=role, actor="test")
        return user


def world_make(folder: Path) -> World:
    """The consortium of the reference charter, one worker a partner, and the people."""
    with system_scope():
        release = Release.objects.create(
            slug=MODEL,
            digest=hashlib.sha256(b"release").hexdigest(),
            manifest={"config.json": "a" * 64, "model.safetensors": "b" * 64, "tokenizer.json": "c" * 64},
            artifact_dir="models/nano",
            max_model_len=2048,
            vocab_size=8192,
        )
        partners, workers, keys = [], [], {}
        for slug, name, dollars in PARTNERS:
            partner = partner_ensure(slug=slug, name=name, jurisdiction="CN")
            nano = dollars_to_nano(dollars)
            offer_ensure(partner=partner, release_slug=MODEL, prices=Prices(nano, nano, nano))
            pool = pool_ensure(partner=partner, slug=f"{slug}-1", region="local", accelerator="cpu")
            key = signing_key_load(folder / f"{slug}.pem")
            worker = _worker(pool, release, slug, key)
            partners.append(partner)
            workers.append(worker)
            keys[worker.id] = key
        tenant = tenant_create(name="Demo Startup", slug="demo", actor="test")
        other = tenant_create(name="Rival Labs", slug="rival", actor="test")
        people = [
            user_create(email=email, password=PASSWORD, is_foundation_admin=email.startswith("admin"))
            for email in ("owner@demo.test", "viewer@demo.test", "owner@rival.test", "admin@foundation.test")
        ]
        for home, person, role in ((tenant, 0, Role.OWNER), (tenant, 1, Role.VIEWER), (other, 2, Role.OWNER)):
            membership_add(tenant_id=home.id, user_id=people[person].id, role=role, actor="test")
            tenant_grant(
                tenant_id=home.id,
                amount_nano=dollars_to_nano(5),
                idempotency_key=f"start-{person}",
                reference="test",
            )
    with tenant_scope(tenant.id):
        project = project_create(tenant_id=tenant.id, name="default", actor="test")
    with tenant_scope(other.id):
        other_project = project_create(tenant_id=other.id, name="default", actor="test")
    return World(
        tenant=tenant,
        other_tenant=other,
        project=project,
        other_project=other_project,
        owner=people[0],
        viewer=people[1],
        stranger=people[2],
        admin=people[3],
        partners=tuple(partners),
        workers=tuple(workers),
        release=release,
        keys=keys,
        gateway_key=signing_key_load(folder / "gateway.pem"),
    )


def _worker(pool: Pool, release: Release, slug: str, key: SigningKey) -> Worker:
    return Worker.objects.create(
        pool=pool,
        name=f"{slug}-worker",
        endpoint="http://127.0.0.1:1",
        public_key=key.public_text,
        release_digest=release.digest,
        release_slug=release.slug,
        capacity={"max_running": 64, "cache_tokens": 65536, "max_model_len": 2048},
        max_running=64,
    )


def _price(index: int) -> Price:
    nano = dollars_to_nano(PARTNERS[index][2])
    return Price(
        offer_id=new_id("off"),
        input_nano_per_mtok=nano,
        cached_input_nano_per_mtok=nano,
        output_nano_per_mtok=nano,
        levy_ppm=LEVY_PPM,
    )


def decision_make(world: World, *, seed: bytes = b"0123456789abcdef", silent: int | None = None) -> Decision:
    """A real decision over the world's workers; ``silent`` is the index of one without a heartbeat."""
    policy = Policy(name="cheapest-first", price_weight=1, load_weight=1, half_cost_ppm=100_000)
    snapshot = Snapshot(
        version=1,
        published_at_ms=1,
        charter_digest="0" * 64,
        policy=policy,
        models=(
            Model(
                name=MODEL,
                release_id=world.release.id,
                release_digest=world.release.digest,
                max_model_len=2048,
                created=1,
                vocab_size=8192,
            ),
        ),
        workers=tuple(
            WorkerEntry(
                worker_id=worker.id,
                pool_id=worker.pool_id,
                partner_id=world.partners[index].id,
                partner_slug=world.partners[index].slug,
                region="local",
                model=MODEL,
                release_digest=world.release.digest,
                endpoint=worker.endpoint,
                public_key=worker.public_key,
                max_running=64,
                state="active",
                price=_price(index),
            )
            for index, worker in enumerate(world.workers)
        ),
    )
    statuses = {
        worker.id: WorkerStatus(state="ready", in_flight=index)
        for index, worker in enumerate(world.workers)
        if index != silent
    }
    return decide(
        snapshot=snapshot,
        snapshot_digest=digest_of(snapshot),
        policy_digest=digest_of(policy),
        statuses=statuses,
        request=Constraints(model=MODEL, prompt_tokens=40, completion_tokens=128),
        seed=seed,
    )


def usage_make(
    world: World,
    *,
    tenant: Tenant | None = None,
    at: datetime | None = None,
    prompt_tokens: int = 40,
    cached_tokens: int = 8,
    completion_tokens: int = 100,
    decision: Decision | None = None,
    request_id: str | None = None,
    tamper: Callable[[Receipt], Receipt] = lambda receipt: receipt,
) -> UsageRecord:
    """A served request as the meter would have posted it."""
    tenant = tenant or world.tenant
    at = at or clock.now()
    decision = decision or decision_make(world)
    chosen = decision.candidate(decision.chosen or "")
    request_id = request_id or new_id("req")
    ms = int(at.timestamp() * 1000)
    entry = JournalEntry(
        seq=1,
        prev_hash=GENESIS_HASH,
        worker_id=chosen.worker_id,
        request_id=request_id,
        model=MODEL,
        release_digest=world.release.digest,
        prompt_tokens=prompt_tokens,
        cached_tokens=cached_tokens,
        completion_tokens=completion_tokens,
        finish_reason="stop",
        received_at_ms=ms - 420,
        first_token_at_ms=ms - 390,
        finished_at_ms=ms,
        output_sha256=hashlib.sha256(b"text").hexdigest(),
    )
    key = world.keys[chosen.worker_id]
    signed = SignedEntry(entry=entry, signature=key.sign(entry.signing_bytes()))
    counts = {
        "prompt_tokens": prompt_tokens,
        "cached_tokens": cached_tokens,
        "completion_tokens": completion_tokens,
    }
    charge = charge_for(price=chosen.price, **counts)
    statement = Statement(
        gateway_id="gw_test",
        request_id=request_id,
        tenant_id=tenant.id,
        entry_hash="",
        prompt_tokens=prompt_tokens,
        cached_tokens=cached_tokens,
        completion_tokens=completion_tokens,
        price=msgspec.to_builtins(chosen.price),
        charge=msgspec.to_builtins(charge),
        relayed_frames=completion_tokens + 2,
        output_sha256=entry.output_sha256,
        decision_digest=digest_of(decision),
    )
    receipt = receipt_countersign(
        Receipt(
            entry=entry,
            worker_signature=signed.signature,
            worker_public_key=key.public_text,
            gateway=statement,
        ),
        world.gateway_key,
    )
    with system_scope():
        return UsageRecord.objects.create(
            request_id=request_id,
            tenant_id=tenant.id,
            project_id=world.project.id,
            api_key_id="key_test",
            partner_id=chosen.partner_id,
            pool_id=chosen.pool_id,
            worker_id=chosen.worker_id,
            release_id=world.release.id,
            offer_id=chosen.price.offer_id,
            model=MODEL,
            endpoint="/v1/chat/completions",
            finish_reason="stop",
            **counts,
            input_nano_per_mtok=chosen.price.input_nano_per_mtok,
            cached_input_nano_per_mtok=chosen.price.cached_input_nano_per_mtok,
            output_nano_per_mtok=chosen.price.output_nano_per_mtok,
            levy_ppm=chosen.price.levy_ppm,
            share_nano=charge.share_nano,
            levy_nano=charge.levy_nano,
            charge_nano=charge.charge_nano,
            witness="both",
            received_at=at - timedelta(milliseconds=420),
            first_token_at=at - timedelta(milliseconds=390),
            finished_at=at,
            receipt=tamper(receipt).to_dict(),
            decision=msgspec.to_builtins(decision),
        )
