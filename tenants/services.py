"""Writes, in the caller's scope: a tenant's for its own rows, the system's for tenants and people."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from core.clock import clock
from core.errors import ApiError, not_found
from core.secrets import NewSecret, new_secret
from tenants.models import ApiKey, AuditEntry, KeyKind, Membership, Project, Role, Tenant, User
from tenants.scope import nested_transaction

SECRET_KINDS = {KeyKind.API: "sk", KeyKind.PLAYGROUND: "pg"}


def audit_record(
    *,
    actor: str,
    action: str,
    object_id: str,
    tenant_id: str | None = None,
    data: Mapping[str, object] | None = None,
) -> AuditEntry:
    """Write down who did what. ``actor`` is an id or ``bootstrap``; ``data`` holds no secrets."""
    return AuditEntry.objects.create(
        actor=actor, action=action, object_id=object_id, tenant_id=tenant_id, data=dict(data or {})
    )


def tenant_create(*, name: str, slug: str, actor: str) -> Tenant:
    """A new organisation. System scope."""
    with nested_transaction():
        tenant = Tenant.objects.create(name=name, slug=slug)
        audit_record(actor=actor, action="tenant.create", object_id=tenant.id, tenant_id=tenant.id)
    return tenant


def user_create(
    *,
    email: str,
    password: str,
    name: str = "",
    is_foundation_admin: bool = False,
    partner_id: str | None = None,
) -> User:
    """A new person who signs in by email. System scope."""
    user = User(
        email=email.strip().lower(),
        name=name,
        is_foundation_admin=is_foundation_admin,
        partner_id=partner_id,
    )
    user.set_password(password)
    user.save(force_insert=True)
    return user


def user_password_set(*, user: User, password: str) -> None:
    """Replace a password; every session signed in with the old one ends."""
    user.set_password(password)
    user.save(update_fields=["password"])


def membership_add(*, tenant_id: str, user_id: str, role: Role, actor: str) -> Membership:
    """Make a person a member, or change their role. System scope."""
    with nested_transaction():
        membership, _created = Membership.objects.update_or_create(
            tenant_id=tenant_id, user_id=user_id, defaults={"role": role}
        )
        audit_record(
            actor=actor,
            action="membership.add",
            object_id=user_id,
            tenant_id=tenant_id,
            data={"role": str(role)},
        )
    return membership


def project_create(*, tenant_id: str, name: str, actor: str) -> Project:
    """A new project. Raises ApiError 409 when the tenant has one of that name. Tenant scope."""
    name = _name(name)
    with nested_transaction():
        if Project.objects.filter(tenant_id=tenant_id, name=name).exists():
            raise ApiError(
                409,
                f"There is a project named {name!r} already. Choose another name.",
                code="name_taken",
                param="name",
            )
        project = Project.objects.create(tenant_id=tenant_id, name=name)
        audit_record(actor=actor, action="project.create", object_id=project.id, tenant_id=tenant_id)
    return project


def api_key_create(
    *,
    tenant_id: str,
    project_id: str,
    name: str,
    actor: str,
    kind: KeyKind = KeyKind.API,
    created_by: str | None = None,
    expires_at: datetime | None = None,
    requests_per_minute: int = 6000,
    max_concurrency: int = 512,
) -> tuple[ApiKey, NewSecret]:
    """A new key and its secret, which exists nowhere else. Raises ApiError 404 for another's project.

    The caller publishes the key to the data plane once the transaction has committed. Tenant scope.
    """
    name = _name(name)
    if expires_at is not None and expires_at <= clock.now():
        raise ApiError(422, "expires_at must lie in the future.", code="invalid_value", param="expires_at")
    with nested_transaction():
        if not Project.objects.filter(id=project_id, tenant_id=tenant_id).exists():
            raise not_found(f"There is no project {project_id!r}.", param="project_id")
        secret = new_secret(SECRET_KINDS[kind])
        key = ApiKey.objects.create(
            tenant_id=tenant_id,
            project_id=project_id,
            name=name,
            display=secret.display,
            digest=secret.digest,
            kind=kind,
            created_by_id=created_by,
            expires_at=expires_at,
            requests_per_minute=requests_per_minute,
            max_concurrency=max_concurrency,
        )
        audit_record(
            actor=actor,
            action="api_key.create",
            object_id=key.id,
            tenant_id=tenant_id,
            data={"name": name, "display": key.display, "kind": str(kind)},
        )
    return key, secret


def api_key_revoke(*, tenant_id: str, key_id: str, actor: str) -> ApiKey:
    """End a key; repeating it changes nothing. Raises ApiError 404 for an unknown or another's key.

    The caller withdraws ``digest`` from the data plane once the transaction has committed. Tenant scope.
    """
    with nested_transaction():
        key = ApiKey.objects.filter(id=key_id, tenant_id=tenant_id).first()
        if key is None:
            raise not_found(f"There is no API key {key_id!r}.")
        if key.revoked_at is None:
            key.revoked_at = clock.now()
            key.save(update_fields=["revoked_at"])
            audit_record(actor=actor, action="api_key.revoke", object_id=key.id, tenant_id=tenant_id)
    return key


def _name(text: str) -> str:
    name = text.strip()
    if not 1 <= len(name) <= 120 or not name.isprintable():
        raise ApiError(422, "A name has 1 to 120 printable characters.", code="invalid_value", param="name")
    return name
