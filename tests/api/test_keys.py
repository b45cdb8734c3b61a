"""API keys over the API: shown once, hashed, known to gateways at once, gone at once."""

from __future__ import annotations

import json
from datetime import timedelta

from pytest_django import Settings

from core import redis_keys
from core.clock import clock
from core.secrets import digest_secret
from directory.redis_client import redis_client
from tenants.models import ApiKey
from tenants.scope import system_scope
from tests.api.world import World, key_client, session_of

JSON = "application/json"


def test_a_key_is_shown_once_and_known_to_gateways(world: World) -> None:
    client = session_of(world.ours.owner)
    answer = client.post(
        "/api/keys",
        {"name": "ci", "project_id": world.ours.project.id, "requests_per_minute": 60, "max_concurrency": 2},
        content_type=JSON,
    )
    assert answer.status_code == 201, answer.content
    made = answer.json()
    assert answer.headers["Cache-Control"] == "no-store"
    record = json.loads(redis_client().get(redis_keys.key_record(digest_secret(made["secret"]))) or b"{}")
    assert (record["key_id"], record["requests_per_minute"]) == (made["id"], 60)
    listed = client.get("/api/keys").json()["data"]
    assert [key["name"] for key in listed] == ["ci", "ours key"]
    assert "secret" not in json.dumps(listed)
    assert key_client(made["secret"]).get("/api/me").status_code == 200


def test_the_same_idempotency_key_makes_one_key(world: World) -> None:
    client = session_of(world.ours.owner)
    body = {"name": "once", "project_id": world.ours.project.id}
    answers = [
        client.post("/api/keys", body, content_type=JSON, headers={"Idempotency-Key": "k1"}) for _ in range(2)
    ]
    assert answers[0].json() == answers[1].json()
    other = client.post(
        "/api/keys", body | {"name": "two"}, content_type=JSON, headers={"Idempotency-Key": "k1"}
    )
    assert (other.status_code, other.json()["error"]["code"]) == (422, "idempotency_key_reused")
    with system_scope():
        assert ApiKey.objects.filter(name="once").count() == 1


def test_revoking_closes_gateways_and_api_and_can_be_repeated(world: World) -> None:
    client = session_of(world.ours.owner)
    made = client.post(
        "/api/keys", {"name": "short", "project_id": world.ours.project.id}, content_type=JSON
    ).json()
    record = redis_keys.key_record(digest_secret(made["secret"]))
    assert redis_client().exists(record) == 1
    first, second = (client.delete(f"/api/keys/{made['id']}").json() for _ in range(2))
    assert first == second
    assert first["revoked_at"] is not None
    assert redis_client().exists(record) == 0
    assert key_client(made["secret"]).get("/api/me").status_code == 401


def test_what_a_key_cannot_be_is_told_with_its_parameter(world: World) -> None:
    client = session_of(world.ours.owner)
    good = {"name": "k", "project_id": world.ours.project.id}
    for changes, status, param in (
        ({"name": " "}, 422, "name"),
        ({"project_id": "prj_none"}, 404, "project_id"),
        ({"requests_per_minute": 0}, 422, "requests_per_minute"),
        ({"max_concurrency": "many"}, 422, "max_concurrency"),
        ({"expires_at": (clock.now() - timedelta(days=1)).isoformat()}, 422, "expires_at"),
        ({"expires_at": "2030-01-01T00:00:00"}, 422, "expires_at"),
        ({"secret": "mine"}, 422, "secret"),
    ):
        answer = client.post("/api/keys", good | changes, content_type=JSON)
        assert (answer.status_code, answer.json()["error"]["param"]) == (status, param), answer.content


def test_viewers_and_keys_may_not_make_or_revoke(world: World) -> None:
    body = {"name": "k", "project_id": world.ours.project.id}
    for client in (session_of(world.ours.viewer), key_client(world.ours.secret)):
        assert client.post("/api/keys", body, content_type=JSON).status_code == 403
        assert client.delete(f"/api/keys/{world.ours.key.id}").status_code == 403
        assert client.post("/api/projects", {"name": "p"}, content_type=JSON).status_code == 403


def test_lists_come_in_pages(world: World) -> None:
    client = session_of(world.ours.owner)
    for number in range(4):
        client.post("/api/projects", {"name": f"p{number}"}, content_type=JSON)
    names, cursor = [], ""
    while cursor is not None:
        page = client.get("/api/projects", {"limit": 2} | ({"cursor": cursor} if cursor else {})).json()
        assert len(page["data"]) <= 2
        names += [project["name"] for project in page["data"]]
        cursor = page["next_cursor"]
    assert sorted(names) == ["ours project", "p0", "p1", "p2", "p3"]
    for limit in ("0", "201", "x"):
        assert client.get(f"/api/projects?limit={limit}").status_code == 422


def test_an_outage_of_redis_loses_no_key(world: World, settings: Settings) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1/0"  # nobody listens there
    client = session_of(world.ours.owner)
    made = client.post("/api/keys", {"name": "k", "project_id": world.ours.project.id}, content_type=JSON)
    assert made.status_code == 201
    assert client.delete(f"/api/keys/{made.json()['id']}").status_code == 200
