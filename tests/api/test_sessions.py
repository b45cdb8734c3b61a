"""Signing in and out over the API; CSRF on every write of a session."""

from __future__ import annotations

from unittest import mock

from django.contrib.sessions.models import Session
from django.test import Client

from tenants.models import User
from tenants.services import user_password_set
from tests.api.world import PASSWORD, World, key_client, session_of

JSON = "application/json"


def _sign_in(
    client: Client, email: str, password: str = PASSWORD, content_type: str = JSON
) -> dict[str, str]:
    answer = client.post("/api/session", {"email": email, "password": password}, content_type=content_type)
    assert answer.status_code == 200, answer.content
    body: dict[str, str] = answer.json()
    return body


def test_signing_in_gives_a_session_a_csrf_token_and_who_one_is(world: World) -> None:
    client = Client(enforce_csrf_checks=True)
    me = _sign_in(client, world.ours.owner.email.upper())
    assert (me["id"], me["role"], me["tenant_id"]) == (world.ours.owner.id, "owner", world.ours.tenant.id)
    cookie = client.cookies["tokenworks_session"]
    assert (cookie["httponly"], cookie["samesite"]) == (True, "Lax")
    created = client.post(
        "/api/projects", {"name": "P"}, content_type=JSON, headers={"X-CSRFToken": me["csrf_token"]}
    )
    assert created.status_code == 201
    assert client.get("/api/me").json()["tenants"][0]["slug"] == "ours-slug"


def test_a_session_without_its_csrf_token_reads_and_never_writes(world: World) -> None:
    client = Client(enforce_csrf_checks=True)
    _sign_in(client, world.ours.owner.email)
    assert client.get("/api/projects").status_code == 200
    for method, path in (
        ("post", "/api/projects"),
        ("post", "/api/keys"),
        ("delete", f"/api/keys/{world.ours.key.id}"),
        ("delete", "/api/session"),
        ("post", f"/api/tenants/{world.ours.tenant.id}/topups"),
    ):
        for token in ("", "x" * 64):
            answer = getattr(client, method)(path, {}, content_type=JSON, headers={"X-CSRFToken": token})
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "csrf_failed"), path


def test_signing_out_ends_the_session(world: World) -> None:
    client = session_of(world.ours.owner)
    assert client.delete("/api/session").status_code == 204
    answer = client.get("/api/me")
    assert (answer.status_code, answer.json()["error"]["type"]) == (401, "authentication_error")
    assert not Session.objects.exists()


def test_a_new_password_ends_old_sessions_and_so_does_switching_off(world: World) -> None:
    first, second = session_of(world.ours.owner), session_of(world.ours.viewer)
    user_password_set(user=world.ours.owner, password="quite another password")
    User.objects.filter(id=world.ours.viewer.id).update(is_active=False)
    assert [client.get("/api/me").status_code for client in (first, second)] == [401, 401]


def test_other_sites_forms_cannot_sign_anyone_in(world: World) -> None:
    answer = Client().post(
        "/api/session",
        f'{{"email": "{world.ours.owner.email}", "password": "{PASSWORD}"}}',
        content_type="text/plain",
    )
    assert answer.status_code == 415
    assert "tokenworks_session" not in answer.cookies


def test_unknown_email_and_wrong_password_get_the_same_answer(world: World) -> None:
    bodies = [
        Client().post("/api/session", {"email": email, "password": "wrong"}, content_type=JSON).content
        for email in (world.ours.owner.email, "nobody@test.example")
    ]
    assert bodies[0] == bodies[1]


def test_too_many_attempts_are_told_when_to_come_back(world: World) -> None:
    client = Client()
    with mock.patch.object(User, "check_password", return_value=False):
        for _attempt in range(11):
            answer = client.post(
                "/api/session", {"email": world.ours.owner.email, "password": ""}, content_type=JSON
            )
    assert answer.status_code == 429
    assert 0 < int(answer.headers["retry-after"]) <= 900
    assert answer.json()["error"]["type"] == "rate_limit_error"


def test_a_key_has_no_session_and_a_wrong_key_is_not_helped_by_one(world: World) -> None:
    assert key_client(world.ours.secret).delete("/api/session").status_code == 400
    me = key_client(world.ours.secret).get("/api/me").json()
    assert (me["kind"], me["tenant_id"], me["csrf_token"]) == ("api_key", world.ours.tenant.id, None)
    client = session_of(world.ours.owner)
    assert client.get("/api/me", headers={"Authorization": "Bearer tw-sk-wrong"}).status_code == 401
