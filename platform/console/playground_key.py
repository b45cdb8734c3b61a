"""The short-lived API key behind the playground: one a session, ten minutes, ended at sign-out.

The gateway knows only API keys, so the playground brings one of its own. Between requests its secret rests in
the session, sealed with a key derived from the site's secret: the database never holds it in plain.
"""

from __future__ import annotations

import base64
from datetime import datetime, timedelta

from cryptography.fernet import Fernet, InvalidToken
from django.conf import settings
from django.http import HttpRequest

from console.frame import Visit
from console.publishing import key_publish, key_withdraw
from core.clock import clock
from core.errors import ApiError
from core.secrets import derive_token
from tenants.actor import Actor
from tenants.models import KeyKind
from tenants.scope import tenant_scope
from tenants.selectors import project_list
from tenants.services import api_key_create, api_key_revoke

LIFETIME = timedelta(minutes=10)
RENEW_BEFORE = timedelta(minutes=1)
_SESSION_KEY = "playground_key"


def playground_key_secret(visit: Visit) -> str:
    """The secret to call the gateway with, for the visit's organisation. Raises ApiError 403, 404, 409."""
    known = visit.request.session.get(_SESSION_KEY)
    if known and _is_fresh(known, visit.actor):
        try:
            return _cipher().decrypt(known["sealed"].encode()).decode()
        except InvalidToken:  # the site's secret has changed since
            pass
    return _create(visit)


def playground_key_end(request: HttpRequest) -> None:
    """Revoke the session's playground key, if it has one."""
    known = request.session.pop(_SESSION_KEY, None)
    if not known:
        return
    with tenant_scope(known["tenant_id"]):
        key = api_key_revoke(tenant_id=known["tenant_id"], key_id=known["id"], actor=known["user_id"])
    key_withdraw(key)


def _create(visit: Visit) -> str:
    tenant_id = visit.actor.tenant()
    visit.actor.require_write()
    expires_at = clock.now() + LIFETIME
    with visit.actor.scope():
        projects = project_list(tenant_id=tenant_id)
        if not projects:
            raise ApiError(409, "Your organisation has no project yet. Create one first.", code="no_project")
        key, secret = api_key_create(
            tenant_id=tenant_id,
            project_id=projects[0].id,
            name="Playground",
            actor=visit.user.id,
            kind=KeyKind.PLAYGROUND,
            created_by=visit.user.id,
            expires_at=expires_at,
        )
    key_publish(key)
    visit.request.session[_SESSION_KEY] = {
        "id": key.id,
        "tenant_id": tenant_id,
        "user_id": visit.user.id,
        "expires_at": expires_at.isoformat(),
        "sealed": _cipher().encrypt(secret.plain.encode()).decode(),
    }
    return secret.plain


def _is_fresh(known: dict[str, str], actor: Actor) -> bool:
    soon = clock.now() + RENEW_BEFORE
    return known["tenant_id"] == actor.tenant_id and datetime.fromisoformat(known["expires_at"]) > soon


def _cipher() -> Fernet:
    secret = bytes.fromhex(derive_token(settings.SECRET_KEY, "playground-key"))
    return Fernet(base64.urlsafe_b64encode(secret))
