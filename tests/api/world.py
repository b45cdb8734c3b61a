"""Two tenants side by side, a foundation admin, a partner with one worker, and a served request of each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec
from django.contrib.auth.hashers import make_password
from django.test import Client

from billing.rating import Price, charge_for
from core.clock import clock
from core.ids import new_id
from core.signing import SigningKey, signing_key_load
from governance.charter import charter_load
from governance.services import charter_adopt
from inference.messages import GENESIS_HASH, JournalEntry
from ledger.models import AccountKind, TransferKind
from ledger.services import account_ensure, tenant_grant, transfer_post
from metering.models import UsageRecord
from partners.models import Partner, Pool, Worker
from partners.services import Prices, offer_ensure, partner_ensure, pool_ensure
from releases.models import Release
from releases.services import release_register
from tenants.models import ApiKey, Project, Role, Tenant, User
from tenants.scope import system_scope
from tenants.services import api_key_create, membership_add, project_create, tenant_create
from tenants.sign_in import BACKEND
from transparency.receipts import Receipt, Statement, receipt_countersign

PASSWORD = "a long enough password"
MODEL = "tokenworks-nano"
CHARTER = Path(__file__).parents[2] / "charters/deepseek.yaml"
PRICES = Prices(100_000_000, 50_000_000, 123_456_789)


@dataclass(frozen=True)
class Household:
    """One tenant with all it owns; ``secret`` is its API key in plain."""

    tenant: Tenant
    owner: User
    viewer: User
    project: Project
    key: ApiKey
    secret: str
    record: UsageRecord

    def marks(self) -> set[str]:
        """Texts that only this tenant may ever see."""
        rows = (self.tenant, self.owner, self.viewer, self.project, self.key)
        names = (self.tenant.name, self.tenant.slug, self.owner.email, self.project.name, self.key.name)
        return {*(row.id for row in rows), *names, self.key.display, self.secret, self.record.request_id}


@dataclass(frozen=True)
class World:
    """Rows the tests start from."""

    ours: Household
    theirs: Household
    admin: User
    partner: Partner
    pool: Pool
    worker: Worker
    worker_key: SigningKey
    release: Release
    model_dir: Path
    folder: Path
    clients: dict[str, Client] = field(default_factory=dict)


@cache
def _password_hash() -> str:
    return make_password(PASSWORD)


def session_of(user: User) -> Client:
    """A browser in which ``user`` is signed in; CSRF is checked as for a real one."""
    client = Client(enforce_csrf_checks=True)
    client.force_login(user, backend=BACKEND)
    token = client.get("/api/me").json()["csrf_token"]
    client.defaults["HTTP_X_CSRFTOKEN"] = token
    return client


def key_client(secret: str) -> Client:
    """A program that sends an API key."""
    return Client(enforce_csrf_checks=True, headers={"Authorization": f"Bearer {secret}"})


def model_make(folder: Path, *, seed: bytes = b"weights") -> Path:
    """A small folder that is a release."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"max_position_embeddings": 2048, "vocab_size": 8192}))
    (folder / "model.safetensors").write_bytes(hashlib.sha256(seed).digest() * 2000)
    return folder


def world_make(folder: Path) -> World:
    """Make all of it."""
    model_dir = model_make(folder / "model")
    worker_key = signing_key_load(folder / "worker.pem")
    with system_scope():
        charter_adopt(document=charter_load(CHARTER))
        release = release_register(slug=MODEL, model_dir=model_dir)
        partner = partner_ensure(slug="huawei", name="Huawei Cloud", jurisdiction="CN")
        offer = offer_ensure(partner=partner, release_slug=MODEL, prices=PRICES)
        pool = pool_ensure(partner=partner, slug="huawei-1", region="r", accelerator="cpu")
        worker = Worker.objects.create(
            pool=pool,
            name="worker-1",
            endpoint="http://127.0.0.1:9",
            public_key=worker_key.public_text,
            release_digest=release.digest,
            release_slug=release.slug,
            capacity={"max_running": 8, "cache_tokens": 4096, "max_model_len": 2048},
            max_running=8,
        )
        price = Price(
            offer_id=offer.id,
            input_nano_per_mtok=PRICES.input_nano_per_mtok,
            cached_input_nano_per_mtok=PRICES.cached_input_nano_per_mtok,
            output_nano_per_mtok=PRICES.output_nano_per_mtok,
            levy_ppm=50_000,
        )
        kit = ReceiptKit(worker, release, price, worker_key, signing_key_load(folder / "gateway.pem"))
        ours, theirs = (_household(name, kit) for name in ("ours", "theirs"))
        admin = User.objects.create(
            email="admin@foundation.example", password=_password_hash(), is_foundation_admin=True
        )
    return World(
        ours=ours,
        theirs=theirs,
        admin=admin,
        partner=partner,
        pool=pool,
        worker=worker,
        worker_key=worker_key,
        release=release,
        model_dir=model_dir,
        folder=folder,
    )


@dataclass(frozen=True)
class ReceiptKit:
    """What receipts are made with."""

    worker: Worker
    release: Release
    price: Price
    worker_key: SigningKey
    gateway_key: SigningKey

    def receipt(self, tenant: Tenant, request_id: str, counts: dict[str, Any]) -> Receipt:
        """A receipt both sides signed."""
        now_ms = clock.now_ms()
        entry = JournalEntry(
            seq=1,
            prev_hash=GENESIS_HASH,
            worker_id=self.worker.id,
            request_id=request_id,
            model=MODEL,
            release_digest=self.release.digest,
            **counts,
            finish_reason="stop",
            received_at_ms=now_ms - 200,
            first_token_at_ms=now_ms - 150,
            finished_at_ms=now_ms,
            output_sha256="0" * 64,
        )
        statement = Statement(
            gateway_id="gw_1",
            request_id=request_id,
            tenant_id=tenant.id,
            entry_hash="",
            **counts,
            price=msgspec.to_builtins(self.price),
            charge=msgspec.to_builtins(charge_for(price=self.price, **counts)),
            relayed_frames=3,
            output_sha256=None,
            decision_digest="0" * 64,
        )
        unsigned = Receipt(
            entry=entry,
            worker_signature=self.worker_key.sign(entry.signing_bytes()),
            worker_public_key=self.worker_key.public_text,
            gateway=statement,
        )
        return receipt_countersign(unsigned, self.gateway_key)


def _household(name: str, kit: ReceiptKit) -> Household:
    tenant = tenant_create(name=f"{name} limited", slug=f"{name}-slug", actor="test")
    people = []
    for who, role in (("owner", Role.OWNER), ("viewer", Role.VIEWER)):
        user = User.objects.create(email=f"{who}@{name}.example", password=_password_hash())
        membership_add(tenant_id=tenant.id, user_id=user.id, role=role, actor="test")
        people.append(user)
    project = project_create(tenant_id=tenant.id, name=f"{name} project", actor="test")
    key, secret = api_key_create(tenant_id=tenant.id, project_id=project.id, name=f"{name} key", actor="test")
    tenant_grant(tenant_id=tenant.id, amount_nano=5_000_000_000, idempotency_key="start", reference="test")
    return Household(
        tenant=tenant,
        owner=people[0],
        viewer=people[1],
        project=project,
        key=key,
        secret=secret.plain,
        record=record_make(tenant, project, key, kit),
    )


def record_make(
    tenant: Tenant,
    project: Project,
    key: ApiKey,
    kit: ReceiptKit,
    in_receipt: Mapping[str, Any] = MappingProxyType({}),
    **changes: Any,
) -> UsageRecord:
    """A served request as the meter posts it, with its two transfers.

    ``in_receipt`` falsifies the receipt after it was signed, ``changes`` the record.
    """
    counts: dict[str, Any] = {"prompt_tokens": 100, "cached_tokens": 20, "completion_tokens": 33}
    request_id = new_id("req")
    charge = charge_for(price=kit.price, **counts)
    fields: dict[str, Any] = {
        "request_id": request_id,
        "tenant_id": tenant.id,
        "project_id": project.id,
        "api_key_id": key.id,
        "partner_id": kit.worker.pool.partner_id,
        "pool_id": kit.worker.pool_id,
        "worker_id": kit.worker.id,
        "release_id": kit.release.id,
        "model": MODEL,
        "endpoint": "/v1/chat/completions",
        "finish_reason": "stop",
        "witness": "both",
        "received_at": clock.now(),
        "finished_at": clock.now(),
        "receipt": {**kit.receipt(tenant, request_id, counts).to_dict(), **in_receipt},
        "decision": {"chosen": kit.worker.id},
        **counts,
        **msgspec.to_builtins(kit.price),
        **msgspec.to_builtins(charge),
    }
    debit = account_ensure(kind=AccountKind.TENANT, owner_id=tenant.id)
    legs = (
        (TransferKind.USAGE_SHARE, AccountKind.PARTNER, kit.worker.pool.partner_id, charge.share_nano),
        (TransferKind.USAGE_LEVY, AccountKind.FOUNDATION, "foundation", charge.levy_nano),
    )
    for kind, owner_kind, owner_id, amount_nano in legs:
        transfer_post(
            debit=debit,
            credit=account_ensure(kind=owner_kind, owner_id=owner_id),
            amount_nano=amount_nano,
            kind=kind,
            reference=request_id,
            idempotency_key=f"usage:{request_id}:{kind.removeprefix('usage_')}",
            tenant_id=tenant.id,
        )
    fields |= changes
    fields["charge_nano"] = fields["share_nano"] + fields["levy_nano"]  # the database refuses anything else
    return UsageRecord.objects.create(**fields)
