"""Signing in and out, and who one is."""

from __future__ import annotations

from django.contrib.auth import login, logout
from django.http import HttpRequest
from django.middleware.csrf import get_token
from ninja import Router, Status

from api.auth import AUTH, actor_of
from api.schemas.account import MeOut, SignInIn, TenantRef
from core.errors import ApiError
from tenants.actor import Actor, actor_of_user
from tenants.selectors import memberships_of_user, tenant_get
from tenants.sign_in import BACKEND, user_authenticate

router = Router(tags=["session"])


@router.post("/session", response=MeOut, auth=None, summary="Sign in")
def session_create(request: HttpRequest, payload: SignInIn) -> MeOut:
    """Sets the session cookie. Attempts are counted per account and address."""
    if request.content_type != "application/json":  # what other sites' forms cannot send
        raise ApiError(415, "Send JSON as application/json.", code="unsupported_media_type")
    user = user_authenticate(
        email=payload.email, password=payload.password, address=request.META.get("REMOTE_ADDR", "")
    )
    login(request, user, backend=BACKEND)
    return _me(request, actor_of_user(user))


@router.delete("/session", response={204: None}, auth=AUTH, summary="Sign out")
def session_delete(request: HttpRequest) -> Status[None]:
    """Ends the session of the cookie."""
    if not actor_of(request).is_person:
        raise ApiError(400, "An API key has no session. Revoke it instead.", code="no_session")
    logout(request)
    return Status(204, None)


@router.get("/me", response=MeOut, auth=AUTH, summary="Who am I")
def me_get(request: HttpRequest) -> MeOut:
    """The caller, the tenant acted for, and every tenant the caller belongs to."""
    return _me(request, actor_of(request))


def _me(request: HttpRequest, actor: Actor) -> MeOut:
    return MeOut(
        id=actor.id,
        kind="user" if actor.is_person else "api_key",
        name=actor.name,
        tenant_id=actor.tenant_id,
        role=actor.role,
        is_foundation_admin=actor.is_foundation_admin,
        tenants=_tenants(actor),
        csrf_token=get_token(request) if actor.is_person else None,
    )


def _tenants(actor: Actor) -> list[TenantRef]:
    if not actor.is_person:
        with actor.scope():
            tenant = tenant_get(actor.tenant())
        return [TenantRef(id=tenant.id, name=tenant.name, slug=tenant.slug, role=actor.role)]
    return [
        TenantRef(id=row.tenant_id, name=row.tenant.name, slug=row.tenant.slug, role=row.role)
        for row in memberships_of_user(actor.id)
    ]
