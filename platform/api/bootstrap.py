"""From an empty database to a consortium with a demo tenant. Safe to repeat: what is there stays.

Secrets are the exception: passwords, the demo key and enrolment tokens are made afresh at each run, because
nobody can read the old ones back.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path

from django.db import connections

from api.publishing import everything_publish, key_withdraw
from core.money import dollars_to_nano
from governance.charter import CharterDocument, CharterError, PartnerTerms, charter_load
from governance.services import charter_adopt
from ledger.models import AccountKind
from ledger.services import EXTERNAL_OWNER_ID, FOUNDATION_OWNER_ID, account_ensure, tenant_grant
from partners.models import Pool, WorkerState
from partners.services import (
    Prices,
    enrolment_token_create,
    offer_ensure,
    partner_ensure,
    pool_ensure,
)
from releases.models import Release
from releases.services import release_register
from tenants.models import ApiKey, Project, Role, Tenant, User
from tenants.scope import SYSTEM, system_scope
from tenants.services import (
    api_key_create,
    api_key_revoke,
    membership_add,
    project_create,
    tenant_create,
    user_create,
    user_password_set,
)

ACTOR = "bootstrap"
DEMO_TENANT = "Demo Startup"
DEMO_SLUG = "demo-startup"
DEMO_PROJECT = "Demo"
DEMO_KEY = "demo"
DEMO_GRANT_NANO = dollars_to_nano("5")
DEMO_EMAIL = "owner@demo-startup.example"
ADMIN_EMAIL = "admin@foundation.example"
_LOCK = 7_300_100  # any constant: two bootstraps wait for each other


@dataclass(frozen=True)
class Account:
    """Someone who can sign in now."""

    email: str
    password: str
    role: str


@dataclass(frozen=True)
class PoolTicket:
    """A pool, and the token that lets one worker in; None when it has a worker."""

    partner: str
    pool_id: str
    slug: str
    enrolment_token: str | None


@dataclass(frozen=True)
class Bootstrap:
    """What a run made or found. Holds secrets in plain."""

    accounts: tuple[Account, ...]
    api_key: str
    tenant_id: str
    project_id: str
    pools: tuple[PoolTicket, ...]
    release: str
    release_digest: str


def bootstrap(*, charter_path: Path, model_dir: Path, fresh_tokens: bool = False) -> Bootstrap:
    """Adopt the charter, register the release, and prepare the demo tenant, in one transaction; then publish.

    Raises CharterError, ValueError or OSError when charter or release cannot be used.
    """
    document = charter_load(charter_path)
    with system_scope():
        with connections[SYSTEM].cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
        pools = _consortium(document)
        release = release_register(slug=_release_slug(document), model_dir=model_dir)
        owner, owner_account = _person(DEMO_EMAIL, "Demo owner", "tenant owner")
        _admin, admin_account = _person(
            ADMIN_EMAIL, "Foundation admin", "foundation admin", is_foundation_admin=True
        )
        tenant, project = _demo_tenant(owner)
        former = _demo_keys_end(tenant)
        done = Bootstrap(
            accounts=(owner_account, admin_account),
            api_key=_demo_key(tenant, project, owner),
            tenant_id=tenant.id,
            project_id=project.id,
            pools=tuple(_ticket(pool, release, fresh_tokens) for pool in pools),
            release=release.slug,
            release_digest=release.digest,
        )
    for key in former:
        key_withdraw(key)
    everything_publish()
    return done


def _consortium(document: CharterDocument) -> list[Pool]:
    charter_adopt(document=document)
    account_ensure(kind=AccountKind.FOUNDATION, owner_id=FOUNDATION_OWNER_ID)
    account_ensure(kind=AccountKind.EXTERNAL, owner_id=EXTERNAL_OWNER_ID)
    return [pool for terms in document.partners for pool in _partner(terms)]


def _partner(terms: PartnerTerms) -> list[Pool]:
    partner = partner_ensure(slug=terms.slug, name=terms.name, jurisdiction=terms.jurisdiction)
    for offer in terms.offers:
        offer_ensure(partner=partner, release_slug=offer.release, prices=Prices(*offer.nano_per_mtok()))
    return [
        pool_ensure(partner=partner, slug=pool.slug, region=pool.region, accelerator=pool.accelerator)
        for pool in terms.pools
    ]


def _release_slug(document: CharterDocument) -> str:
    slugs = {offer.release for partner in document.partners for offer in partner.offers}
    if len(slugs) != 1:
        raise CharterError(f"a bootstrap serves one release, the charter's offers name {sorted(slugs)}")
    return slugs.pop()


def _demo_tenant(owner: User) -> tuple[Tenant, Project]:
    tenant = Tenant.objects.filter(slug=DEMO_SLUG).first()
    if tenant is None:
        tenant = tenant_create(name=DEMO_TENANT, slug=DEMO_SLUG, actor=ACTOR)
    account_ensure(kind=AccountKind.TENANT, owner_id=tenant.id)
    tenant_grant(
        tenant_id=tenant.id, amount_nano=DEMO_GRANT_NANO, idempotency_key="demo", reference="demo grant"
    )
    project = Project.objects.filter(tenant=tenant, name=DEMO_PROJECT).first()
    if project is None:
        project = project_create(tenant_id=tenant.id, name=DEMO_PROJECT, actor=ACTOR)
    if not owner.memberships.filter(tenant=tenant, role=Role.OWNER).exists():
        membership_add(tenant_id=tenant.id, user_id=owner.id, role=Role.OWNER, actor=ACTOR)
    return tenant, project


def _person(email: str, name: str, role: str, *, is_foundation_admin: bool = False) -> tuple[User, Account]:
    """The person with this email, made or given a fresh password."""
    password = secrets.token_urlsafe(15)
    user = User.objects.filter(email=email).first()
    if user is None:
        user = user_create(email=email, password=password, name=name, is_foundation_admin=is_foundation_admin)
    else:
        user_password_set(user=user, password=password)
    return user, Account(email=email, password=password, role=role)


def _demo_keys_end(tenant: Tenant) -> list[ApiKey]:
    former = ApiKey.objects.filter(tenant=tenant, name=DEMO_KEY, revoked_at__isnull=True)
    return [api_key_revoke(tenant_id=tenant.id, key_id=key.id, actor=ACTOR) for key in former]


def _demo_key(tenant: Tenant, project: Project, owner: User) -> str:
    _key, secret = api_key_create(
        tenant_id=tenant.id, project_id=project.id, name=DEMO_KEY, actor=ACTOR, created_by=owner.id
    )
    return secret.plain


def _ticket(pool: Pool, release: Release, fresh_tokens: bool) -> PoolTicket:
    """A worker of another release must enrol again, so it counts as none."""
    served = pool.workers.filter(state=WorkerState.ACTIVE, release_digest=release.digest).exists()
    token = enrolment_token_create(pool=pool) if fresh_tokens or not served else None
    return PoolTicket(partner=pool.partner.slug, pool_id=pool.id, slug=pool.slug, enrolment_token=token)
