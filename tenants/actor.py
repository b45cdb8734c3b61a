"""Who acts: a signed-in person or an API key, always for one tenant at a time."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass

from core.clock import clock
from core.errors import ApiError, not_found, unauthorized
from core.secrets import digest_secret, looks_like_secret
from tenants.models import ApiKey, KeyKind, Membership, Role, User
from tenants.scope import system_scope, tenant_scope, user_scope


@dataclass(frozen=True)
class Actor:
    """``id`` is a user or key id. ``tenant_id`` is None for a person who belongs to no tenant."""

    id: str
    name: str
    tenant_id: str | None
    role: str
    is_person: bool
    is_foundation_admin: bool = False

    def scope(self) -> AbstractContextManager[None]:
        """A transaction that sees this actor's tenant only. Raises ApiError 404 without a tenant."""
        return tenant_scope(self.tenant(), user_id=self.id if self.is_person else "")

    def tenant(self) -> str:
        """The tenant acted for. Raises ApiError 404 when there is none."""
        if self.tenant_id is None:
            raise not_found("You belong to no organisation yet. Ask an owner to add you.", code="no_tenant")
        return self.tenant_id

    def require_write(self) -> None:
        """Raises ApiError 403 for API keys and viewers."""
        if not self.is_person:
            raise ApiError(
                403,
                "API keys may only read here. Sign in to change something.",
                type="permission_error",
                code="session_required",
            )
        if self.role not in (Role.OWNER, Role.MEMBER):
            raise ApiError(
                403,
                "Viewers may not change anything. Ask an owner for the role of a member.",
                type="permission_error",
                code="role_required",
            )

    def require_foundation_admin(self) -> None:
        """Raises ApiError 403 for anyone but the foundation's admins."""
        if not (self.is_person and self.is_foundation_admin):
            raise ApiError(
                403, "Only foundation admins may do this.", type="permission_error", code="admin_required"
            )


def actor_of_user(user: User, *, tenant_id: str | None = None) -> Actor:
    """The person, acting for ``tenant_id`` or, when that is none of theirs, for their oldest tenant."""
    with user_scope(user.id):
        own = Membership.objects.filter(user_id=user.id, tenant__is_active=True)
        membership = own.filter(tenant_id=tenant_id).first() or own.order_by("id").first()
    return Actor(
        id=user.id,
        name=user.email,
        tenant_id=membership.tenant_id if membership else None,
        role=membership.role if membership else "",
        is_person=True,
        is_foundation_admin=user.is_foundation_admin,
    )


def actor_of_secret(plain: str) -> Actor:
    """The API key with this secret. Raises ApiError 401, the same for every reason."""
    if not looks_like_secret(plain):
        raise unauthorized()
    with system_scope():
        key = (
            ApiKey.objects.filter(digest=digest_secret(plain), kind=KeyKind.API, tenant__is_active=True)
            .filter(revoked_at__isnull=True)
            .first()
        )
    if key is None or (key.expires_at is not None and key.expires_at <= clock.now()):
        raise unauthorized()
    return Actor(id=key.id, name=key.display, tenant_id=key.tenant_id, role=Role.VIEWER, is_person=False)
