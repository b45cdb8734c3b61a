"""API keys of the caller's tenant: made, listed, revoked; a secret is shown once."""

from __future__ import annotations

from typing import Annotated

from django.http import HttpRequest
from ninja import Header, Router, Status

from api.auth import AUTH, actor_of
from api.paging import Cursor, Limit, page_of
from api.publishing import key_publish, key_withdraw
from api.schemas.account import KeyIn, KeyOut, KeyPage, NewKeyOut
from tenants.actor import Actor
from tenants.idempotency import answer_once
from tenants.models import ApiKey, KeyKind
from tenants.services import api_key_create, api_key_revoke

router = Router(tags=["keys"], auth=AUTH)
IdempotencyKey = Annotated[
    str | None, Header(alias="Idempotency-Key", description="Repeating a request with it is safe for a day.")
]


@router.get("/keys", response=KeyPage, summary="List API keys")
def keys_list(request: HttpRequest, limit: Limit = 50, cursor: Cursor = None) -> KeyPage:
    """Newest first, revoked ones included; never a secret."""
    actor = actor_of(request)
    with actor.scope():
        rows = ApiKey.objects.filter(tenant_id=actor.tenant(), kind=KeyKind.API)
        data, next_cursor = page_of(rows, _show, limit=limit, cursor=cursor)
    return KeyPage(data=list(data), next_cursor=next_cursor)


@router.post("/keys", response={201: NewKeyOut}, summary="Create an API key")
def keys_create(
    request: HttpRequest, payload: KeyIn, idempotency_key: IdempotencyKey = None
) -> Status[NewKeyOut]:
    """The answer holds the ``secret``; it cannot be shown again."""
    actor = actor_of(request)
    actor.require_write()
    with actor.scope():
        answer = answer_once(
            tenant_id=actor.tenant(),
            actor=actor.id,
            key=idempotency_key,
            request=payload.model_dump_json().encode(),
            produce=lambda: _create(actor, payload).model_dump_json().encode(),
        )
        made = NewKeyOut.model_validate_json(answer)
        key = ApiKey.objects.get(id=made.id)
    if key.revoked_at is None:
        key_publish(key)
    return Status(201, made)


@router.delete("/keys/{key_id}", response=KeyOut, summary="Revoke an API key")
def keys_revoke(request: HttpRequest, key_id: str) -> KeyOut:
    """Gateways refuse it from the moment this is answered. Repeating it is safe."""
    actor = actor_of(request)
    actor.require_write()
    with actor.scope():
        key = api_key_revoke(tenant_id=actor.tenant(), key_id=key_id, actor=actor.id)
    key_withdraw(key)
    return _show(key)


def _create(actor: Actor, payload: KeyIn) -> NewKeyOut:
    key, secret = api_key_create(
        tenant_id=actor.tenant(),
        project_id=payload.project_id,
        name=payload.name,
        actor=actor.id,
        created_by=actor.id,
        expires_at=payload.expires_at,
        requests_per_minute=payload.requests_per_minute,
        max_concurrency=payload.max_concurrency,
    )
    return NewKeyOut(**_show(key).model_dump(), secret=secret.plain)


def _show(key: ApiKey) -> KeyOut:
    return KeyOut(
        id=key.id,
        project_id=key.project_id,
        name=key.name,
        display=key.display,
        created_at=key.created_at,
        expires_at=key.expires_at,
        revoked_at=key.revoked_at,
        requests_per_minute=key.requests_per_minute,
        max_concurrency=key.max_concurrency,
    )
