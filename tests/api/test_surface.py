"""Health, metrics, error forms, headers, documentation."""

from __future__ import annotations

import re
from unittest import mock

import pytest
import redis
from django.db import OperationalError
from django.test import Client
from pytest_django import Settings

from api import health
from api.root import api
from core.ids import is_id
from tests.api.world import World, key_client, session_of

FIELDS = {"message", "type", "param", "code"}
JSON = "application/json"


def test_alive_and_ready(world: World) -> None:
    client = Client()
    assert client.get("/healthz").json() == {"status": "ok"}
    ready = client.get("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (200, "ready")
    assert set(ready.json()["checks"]) == {"postgres_app", "postgres_system", "redis"}


def test_not_ready_without_redis_or_database_but_alive(world: World, settings: Settings) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    answer = Client().get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["checks"]["redis"] == "failed: ConnectionError"
    with mock.patch.object(health, "_ask_database", side_effect=OperationalError("away")):
        checks = Client().get("/readyz").json()["checks"]
    assert checks["postgres_app"] == checks["postgres_system"] == "failed: OperationalError"
    assert Client().get("/healthz").status_code == 200


def test_metrics_count_routes_not_ids(world: World) -> None:
    client = key_client(world.ours.secret)
    client.get(f"/api/receipts/{world.ours.record.request_id}")
    client.get("/nowhere/at/all")
    text = client.get("/metrics").content.decode()
    assert re.search(
        r'tokenworks_control_requests_total\{method="GET",route="api/receipts/<request_id>",status="200"\} ',
        text,
    )
    assert 'route="unmatched",status="404"' in text
    assert "tokenworks_control_request_seconds_bucket" in text
    assert world.ours.record.request_id not in text
    assert "nowhere" not in text


def test_every_answer_has_a_request_id_and_takes_over_a_good_one(world: World) -> None:
    client = Client()
    fresh = client.get("/api/me").headers["x-request-id"]
    assert is_id(fresh, "req")
    assert client.get("/healthz", headers={"x-request-id": fresh}).headers["x-request-id"] == fresh
    for bad in ("x", "req_", f"{fresh}\n", fresh.replace("req", "ten")):
        assert client.get("/healthz", headers={"x-request-id": bad}).headers["x-request-id"] != bad


def test_browsers_are_told_to_be_careful(world: World) -> None:
    for path in ("/api/me", "/sign-in", "/healthz"):
        headers = Client().get(path).headers
        assert "default-src 'self'" in headers["Content-Security-Policy"]
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["Referrer-Policy"] == "same-origin"


def test_every_error_has_the_four_fields(world: World) -> None:
    client = session_of(world.ours.owner)
    answers = {
        404: [client.get("/api/none"), client.get("/api"), client.post("/api/keys/x/y")],
        405: [client.put("/api/keys"), client.get("/api/session")],
        400: [client.post("/api/keys", "{", content_type=JSON)],
        422: [client.post("/api/keys", "{}", content_type=JSON), client.get("/api/keys?limit=x")],
        401: [Client().get("/api/me")],
        403: [client.get("/api/admin/pools")],
    }
    for status, group in answers.items():
        for answer in group:
            assert answer.status_code == status, answer.content
            assert answer.headers["Content-Type"].startswith(JSON)
            assert set(answer.json()["error"]) == FIELDS
            assert answer.json()["error"]["message"]
    assert set(answers[405][0].headers["Allow"].split(", ")) == {"GET", "POST"}


def test_too_large_a_body_is_refused(world: World) -> None:
    answer = session_of(world.ours.owner).post("/api/keys", "x" * 2_000_000, content_type=JSON)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")
    assert set(answer.json()["error"]) == FIELDS


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [(OperationalError("the database system is shutting down"), 503, "server_is_overloaded"),
     (ZeroDivisionError("secret detail"), 500, "fault")],
)  # fmt: skip
def test_faults_are_told_without_their_details(
    world: World, fault: Exception, status: int, code: str
) -> None:
    with mock.patch("api.routes.money.tenant_balance", side_effect=fault):
        answer = key_client(world.ours.secret).get("/api/balance")
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert str(fault) not in answer.content.decode()


def test_a_redis_that_hangs_up_is_no_fault_of_the_request(world: World) -> None:
    with mock.patch("api.publishing.publish_key", side_effect=redis.TimeoutError("slow")):
        answer = session_of(world.ours.owner).post(
            "/api/keys", {"name": "k", "project_id": world.ours.project.id}, content_type=JSON
        )
    assert answer.status_code == 201


def test_the_documentation_is_served_from_here(world: World) -> None:
    client = Client()
    page = client.get("/api/docs").content.decode()
    assert "https://" not in page.replace("http://www.w3.org", "")
    script = client.get("/static/ninja/swagger-ui-bundle.js")
    assert (script.status_code, len(b"".join(script)) > 100_000) == (200, True)
    script.close()
    document = client.get("/api/openapi.json").json()
    assert document["info"]["title"] == "Tokenworks control API"


def test_every_operation_is_described_and_named_once() -> None:
    operations = [
        operation for methods in api.get_openapi_schema()["paths"].values() for operation in methods.values()
    ]
    assert all(operation.get("description") and operation.get("summary") for operation in operations)
    names = [operation["operationId"] for operation in operations]
    assert len(set(names)) == len(names)
    guarded = [operation for operation in operations if operation.get("security")]
    assert len(operations) - len(guarded) == 3  # sign-in and the two of a joining worker


def test_a_zero_byte_is_refused_not_a_fault(world: World) -> None:
    client = key_client(world.ours.secret)
    for path in ("/api/receipts?cursor=%00", "/api/receipts/%00", "/api/keys?cursor=a%00"):
        answer = client.get(path)
        assert (answer.status_code, set(answer.json()["error"])) == (422, FIELDS), path
    nobody = {"email": "a\0@example.com", "password": "guess"}
    assert Client().post("/api/session", nobody, content_type=JSON).status_code == 401
    far = client.get("/api/usage?to=0001-01-02")
    assert (far.status_code, far.json()["error"]["param"]) == (422, "to")
