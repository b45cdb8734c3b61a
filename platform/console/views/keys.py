"""API keys: list, create (the secret is shown once), revoke after a second question."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from django.db import transaction
from django.http import HttpResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_http_methods, require_safe

from console.access import member_page
from console.frame import Visit
from console.publishing import key_publish, key_withdraw
from core.clock import clock
from core.errors import ApiError, not_found
from tenants.models import ApiKey
from tenants.scope import APP
from tenants.selectors import api_key_list, project_list
from tenants.services import api_key_create, api_key_revoke

_ROWS_MAX = 500


@dataclass(frozen=True, slots=True)
class KeyRow:
    """One key as the list shows it."""

    id: str
    name: str
    display: str
    project_name: str
    created_at: datetime
    revoked_at: datetime | None
    is_expired: bool


@dataclass(frozen=True, slots=True)
class CreatedKey:
    """A key just made, with the secret that exists nowhere else."""

    name: str
    secret: str


@require_http_methods(["GET", "HEAD", "POST"])
@member_page
def keys(visit: Visit) -> HttpResponse:
    """The list; POST adds one."""
    if visit.request.method != "POST":
        return visit.page("console/keys.html", _context(visit))
    visit.actor.require_write()
    try:
        key, secret = api_key_create(
            tenant_id=visit.actor.tenant(),
            project_id=visit.request.POST.get("project", ""),
            name=visit.request.POST.get("name", ""),
            actor=visit.user.id,
            created_by=visit.user.id,
        )
    except ApiError as error:
        if visit.wants_part:
            return visit.page("console/_problem.html", {"problem": error.message}, status=422)
        return visit.page("console/keys.html", {**_context(visit), "problem": error.message}, status=422)
    transaction.on_commit(lambda: key_publish(key), using=APP)
    created = {"created": CreatedKey(name=key.name, secret=secret.plain)}
    if visit.wants_part:
        return visit.page("console/_key_added.html", {**_context(visit), **created, "oob": True})
    return visit.page("console/keys.html", {**_context(visit), **created})


@require_http_methods(["GET", "HEAD", "POST"])
@member_page
def key_revoke(visit: Visit, key_id: str) -> HttpResponse:
    """GET asks, POST does it."""
    visit.actor.require_write()
    in_place = visit.wants_part
    if visit.request.method == "POST":
        key = api_key_revoke(tenant_id=visit.actor.tenant(), key_id=key_id, actor=visit.user.id)
        transaction.on_commit(lambda: key_withdraw(key), using=APP)
        if not in_place:
            return redirect("console:keys")
        return visit.page("console/_key_row.html", {"key": _find(visit, key_id)})
    template = "console/_key_confirm.html" if in_place else "console/key_revoke.html"
    return visit.page(template, {"key": _find(visit, key_id)})


@require_safe
@member_page
def key_row(visit: Visit, key_id: str) -> HttpResponse:
    """The row as it was, after a question answered with no."""
    return visit.page("console/_key_row.html", {"key": _find(visit, key_id)})


def _context(visit: Visit) -> dict[str, object]:
    tenant_id = visit.actor.tenant()
    rows = [_row(key) for key in api_key_list(tenant_id=tenant_id, limit=_ROWS_MAX)]
    return {"keys": rows, "projects": project_list(tenant_id=tenant_id)}


def _find(visit: Visit, key_id: str) -> KeyRow:
    for key in api_key_list(tenant_id=visit.actor.tenant(), limit=_ROWS_MAX):
        if key.id == key_id:
            return _row(key)
    raise not_found(f"There is no API key {key_id!r}.")


def _row(key: ApiKey) -> KeyRow:
    return KeyRow(
        id=key.id,
        name=key.name,
        display=key.display,
        project_name=key.project.name,
        created_at=key.created_at,
        revoked_at=key.revoked_at,
        is_expired=key.expires_at is not None and key.expires_at <= clock.now(),
    )
