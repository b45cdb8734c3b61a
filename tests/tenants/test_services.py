"""Projects, keys and the audit trail."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import DatabaseError

from core.clock import clock
from core.errors import ApiError
from core.secrets import digest_secret, looks_like_secret
from tenants.actor import Actor, actor_of_secret, actor_of_user
from tenants.models import ApiKey, AuditEntry, KeyKind, Project, Role, Tenant, User
from tenants.scope import system_scope, tenant_scope
from tenants.selectors import api_key_list, audit_list, memberships_of_user, project_list
from tenants.services import api_key_create, api_key_revoke, membership_add, project_create, tenant_create

database = pytest.mark.django_db(transaction=True)


@pytest.fixture
def tenant() -> Tenant:
    """An organisation."""
    with system_scope():
        return tenant_create(name="Ours", slug="ours", actor="test")


@pytest.fixture
def project(tenant: Tenant) -> Project:
    """Its project."""
    with tenant_scope(tenant.id):
        return project_create(tenant_id=tenant.id, name="One", actor="test")


def _key(project: Project, **changes: Any) -> tuple[ApiKey, str]:
    with tenant_scope(project.tenant_id):
        fields: dict[str, Any] = {"project_id": project.id, "name": "k"} | changes
        key, secret = api_key_create(tenant_id=project.tenant_id, actor="test", **fields)
    return key, secret.plain


@database
def test_a_key_is_stored_as_a_digest_only(project: Project) -> None:
    key, secret = _key(project)
    assert looks_like_secret(secret)
    assert key.digest == digest_secret(secret)
    with system_scope():
        row = ApiKey.objects.filter(id=key.id).values().get()
    body = secret.removeprefix("tw-sk-")
    assert body not in str(row)
    assert row["display"] == f"{secret[:10]}…{secret[-4:]}"


@database
def test_a_key_speaks_for_its_tenant_until_it_is_revoked(project: Project) -> None:
    key, secret = _key(project)
    actor = actor_of_secret(secret)
    assert (actor.id, actor.tenant_id, actor.is_person) == (key.id, project.tenant_id, False)
    with tenant_scope(project.tenant_id):
        first = api_key_revoke(tenant_id=project.tenant_id, key_id=key.id, actor="test")
        again = api_key_revoke(tenant_id=project.tenant_id, key_id=key.id, actor="test")
    assert first.revoked_at == again.revoked_at is not None
    with pytest.raises(ApiError, match="Incorrect API key"):
        actor_of_secret(secret)


@database
def test_expired_playground_and_malformed_keys_open_nothing(project: Project) -> None:
    soon = clock.now() + timedelta(hours=1)
    _expiring, secret = _key(project, expires_at=soon)
    assert actor_of_secret(secret).tenant_id == project.tenant_id
    _playground, playground = _key(project, kind=KeyKind.PLAYGROUND)
    with clock.frozen(soon):
        for plain in (secret, playground, "", "tw-sk-1", secret[:-1] + "0", secret.upper()):
            with pytest.raises(ApiError, match="Incorrect API key"):
                actor_of_secret(plain)


@database
def test_a_switched_off_tenant_is_locked_out(project: Project) -> None:
    _key_row, secret = _key(project)
    with system_scope():
        Tenant.objects.filter(id=project.tenant_id).update(is_active=False)
    with pytest.raises(ApiError, match="Incorrect API key"):
        actor_of_secret(secret)


@database
def test_keys_are_refused_for_other_projects_bad_names_and_past_expiry(project: Project) -> None:
    refused = (
        ({"project_id": "prj_unknown"}, 404),
        ({"name": "  "}, 422),
        ({"name": "tab\tbed"}, 422),
        ({"expires_at": clock.now()}, 422),
    )
    for changes, status in refused:
        with pytest.raises(ApiError) as caught:
            _key(project, **changes)
        assert caught.value.status == status, changes


@database
def test_project_names_are_unique_within_a_tenant(project: Project) -> None:
    with tenant_scope(project.tenant_id):
        with pytest.raises(ApiError) as caught:
            project_create(tenant_id=project.tenant_id, name=" One ", actor="test")
        assert caught.value.status == 409
        project_create(tenant_id=project.tenant_id, name="Two", actor="test")
        assert [row.name for row in project_list(tenant_id=project.tenant_id)] == ["One", "Two"]


@database
def test_what_happened_is_on_record_and_stays(project: Project) -> None:
    key, secret = _key(project)
    with tenant_scope(project.tenant_id):
        api_key_revoke(tenant_id=project.tenant_id, key_id=key.id, actor="usr_x")
        entries = audit_list(tenant_id=project.tenant_id)
        assert [entry.action for entry in entries] == [
            "api_key.revoke",
            "api_key.create",
            "project.create",
            "tenant.create",
        ]
        assert secret not in str([entry.data for entry in entries])
    for scope in (tenant_scope(project.tenant_id), system_scope()):
        with pytest.raises(DatabaseError, match="permission denied"), scope:
            AuditEntry.objects.update(actor="nobody")


@database
def test_keys_are_listed_newest_first_in_pages(project: Project) -> None:
    made = [_key(project, name=f"k{number}")[0].id for number in range(3)]
    with tenant_scope(project.tenant_id):
        page = api_key_list(tenant_id=project.tenant_id, limit=2)
        rest = api_key_list(tenant_id=project.tenant_id, limit=2, before=page[-1].id)
    assert {key.id for key in page} | {key.id for key in rest} == set(made)
    assert [key.id for key in [*page, *rest]] == sorted(made, reverse=True)


@database
def test_a_person_acts_for_one_of_their_own_tenants(tenant: Tenant) -> None:
    with system_scope():
        user = User.objects.create(email="p@test.example", password="!")
        other = tenant_create(name="Other", slug="other", actor="test")
        foreign = tenant_create(name="Foreign", slug="foreign", actor="test")
        membership_add(tenant_id=tenant.id, user_id=user.id, role=Role.OWNER, actor="test")
        membership_add(tenant_id=other.id, user_id=user.id, role=Role.VIEWER, actor="test")
    assert [row.tenant.name for row in memberships_of_user(user.id)] == ["Ours", "Other"]
    assert actor_of_user(user).tenant_id == tenant.id
    assert actor_of_user(user, tenant_id=other.id).role == Role.VIEWER
    assert actor_of_user(user, tenant_id=foreign.id).tenant_id == tenant.id


def test_viewers_keys_and_strangers_may_not_write() -> None:
    viewer = Actor(id="usr_1", name="v", tenant_id="ten_1", role=Role.VIEWER, is_person=True)
    key = Actor(id="key_1", name="k", tenant_id="ten_1", role=Role.OWNER, is_person=False)
    stranger = Actor(id="usr_2", name="s", tenant_id=None, role="", is_person=True)
    for actor in (viewer, key, stranger):
        with pytest.raises(ApiError) as caught:
            actor.require_write()
        assert caught.value.status == 403
        with pytest.raises(ApiError):
            actor.require_foundation_admin()
    with pytest.raises(ApiError, match="no organisation"):
        stranger.scope()
    with pytest.raises(ApiError):  # a key is never an admin, whatever else is claimed
        Actor("key_2", "k", None, "", is_person=False, is_foundation_admin=True).require_foundation_admin()
