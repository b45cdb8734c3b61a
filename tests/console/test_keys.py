"""API keys: shown once, known to the gateways, gone when revoked."""

from __future__ import annotations

import re

import pytest
import redis
from django.test import Client

from core import redis_keys
from core.secrets import digest_secret
from tenants.models import ApiKey, AuditEntry, KeyKind
from tenants.scope import system_scope, tenant_scope
from tenants.services import api_key_create
from tests.console.world import World

SECRET = re.compile(r"tw-sk-[0-9a-f]{72}")
HTMX = {"HX-Request": "true"}


def _create(client: Client, world: World, **headers: str) -> str:
    form = {"name": "production", "project": world.project.id}
    response = client.post("/console/keys", form, headers=headers)
    assert response.status_code == 200
    found = SECRET.findall(response.content.decode())
    assert len(found) == 1
    return str(found[0])


def _key(secret: str) -> ApiKey:
    with system_scope():
        return ApiKey.objects.get(digest=digest_secret(secret))


@pytest.mark.parametrize("headers", [{}, HTMX])
def test_a_secret_is_shown_once_and_stored_nowhere(
    headers: dict[str, str], world: World, owner_client: Client, redis_url: str
) -> None:
    secret = _create(owner_client, world, **headers)
    key = _key(secret)
    page = owner_client.get("/console/keys").content.decode()
    assert secret not in page
    assert key.display in page
    with system_scope():
        audit = list(AuditEntry.objects.values_list("data", flat=True))
    assert secret not in str(audit)
    with redis.Redis.from_url(redis_url) as client:
        record = client.get(redis_keys.key_record(key.digest))
    assert isinstance(record, bytes)
    assert world.tenant.id.encode() in record
    assert secret.encode() not in record


def test_revoking_asks_first_then_reaches_the_gateways(
    world: World, owner_client: Client, redis_url: str
) -> None:
    key = _key(_create(owner_client, world))
    question = owner_client.get(f"/console/keys/{key.id}/revoke", headers=HTMX).content.decode()
    assert "cannot be undone" in question
    with redis.Redis.from_url(redis_url) as client:
        assert client.exists(redis_keys.key_record(key.digest))
        row = owner_client.post(f"/console/keys/{key.id}/revoke", headers=HTMX).content.decode()
        assert not client.exists(redis_keys.key_record(key.digest))
    assert "Revoked" in row
    assert "hx-get" not in row
    with system_scope():
        assert ApiKey.objects.get(id=key.id).revoked_at is not None


def test_revoking_works_without_a_script(world: World, owner_client: Client) -> None:
    key = _key(_create(owner_client, world))
    assert "cannot be undone" in owner_client.get(f"/console/keys/{key.id}/revoke").content.decode()
    response = owner_client.post(f"/console/keys/{key.id}/revoke", follow=True)
    assert response.redirect_chain == [("/console/keys", 302)]
    assert "Revoked" in response.content.decode()


@pytest.mark.parametrize("path", ["", "/revoke"])
def test_another_tenants_key_does_not_exist(path: str, world: World, owner_client: Client) -> None:
    with tenant_scope(world.other_tenant.id):
        key, _secret = api_key_create(
            tenant_id=world.other_tenant.id, project_id=world.other_project.id, name="theirs", actor="test"
        )
    assert owner_client.get(f"/console/keys/{key.id}{path}").status_code == 404
    assert owner_client.post(f"/console/keys/{key.id}/revoke").status_code == 404
    with system_scope():
        assert ApiKey.objects.get(id=key.id).revoked_at is None
    response = owner_client.post("/console/keys", {"name": "mine", "project": world.other_project.id})
    assert response.status_code == 422
    assert "There is no project" in response.content.decode()


def test_viewers_see_keys_and_change_none(world: World, owner_client: Client) -> None:
    key = _key(_create(owner_client, world))
    viewer = world.client_of(world.viewer)
    page = viewer.get("/console/keys").content.decode()
    assert key.display in page
    assert "Create key" not in page
    assert viewer.post("/console/keys", {"name": "x", "project": world.project.id}).status_code == 403
    assert viewer.post(f"/console/keys/{key.id}/revoke").status_code == 403


@pytest.mark.parametrize("headers", [{}, HTMX])
def test_a_bad_name_is_explained(headers: dict[str, str], world: World, owner_client: Client) -> None:
    form = {"name": "  ", "project": world.project.id}
    response = owner_client.post("/console/keys", form, headers=headers)
    assert response.status_code == 422
    assert "1 to 120 printable characters" in response.content.decode()


def test_playground_keys_are_not_listed(world: World, owner_client: Client) -> None:
    with tenant_scope(world.tenant.id):
        key, _secret = api_key_create(
            tenant_id=world.tenant.id,
            project_id=world.project.id,
            name="Playground",
            actor="test",
            kind=KeyKind.PLAYGROUND,
        )
    assert key.display not in owner_client.get("/console/keys").content.decode()
