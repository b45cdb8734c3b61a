"""Reads of organisations, people and keys, in the caller's scope."""

from __future__ import annotations

from collections.abc import Sequence

from core.errors import not_found
from tenants.models import ApiKey, AuditEntry, KeyKind, Membership, Project, Tenant
from tenants.scope import user_scope


def tenant_get(tenant_id: str) -> Tenant:
    """The tenant. Raises ApiError 404 when there is none, or none this scope may see."""
    tenant = Tenant.objects.filter(id=tenant_id).first()
    if tenant is None:
        raise not_found(f"There is no tenant {tenant_id!r}.")
    return tenant


def memberships_of_user(user_id: str) -> Sequence[Membership]:
    """The person's memberships in active tenants, with their tenants, oldest first. Opens its own scope."""
    with user_scope(user_id):
        rows = Membership.objects.filter(user_id=user_id, tenant__is_active=True)
        return list(rows.select_related("tenant").order_by("id"))


def project_list(*, tenant_id: str) -> Sequence[Project]:
    """All projects of the tenant, oldest first."""
    return list(Project.objects.filter(tenant_id=tenant_id).order_by("id"))


def api_key_list(
    *, tenant_id: str, limit: int = 100, before: str | None = None, kind: KeyKind = KeyKind.API
) -> Sequence[ApiKey]:
    """Keys of the tenant, newest first, from before the id ``before``."""
    rows = ApiKey.objects.filter(tenant_id=tenant_id, kind=kind).select_related("project").order_by("-id")
    if before is not None:
        rows = rows.filter(id__lt=before)
    return list(rows[:limit])


def audit_list(*, tenant_id: str, limit: int = 100) -> Sequence[AuditEntry]:
    """What happened in the tenant, newest first."""
    return list(AuditEntry.objects.filter(tenant_id=tenant_id).order_by("-id")[:limit])
