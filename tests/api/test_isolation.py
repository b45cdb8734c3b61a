"""No endpoint, by session or by key, shows or changes anything of another tenant.

The cases follow from the OpenAPI document: an endpoint that is added without a case fails the first test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from django.http import HttpResponse
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

from api.root import api
from core import redis_keys
from directory.redis_client import redis_client
from ledger.models import Account, Transfer
from metering.models import UsageRecord
from tenants.models import ApiKey, AuditEntry, Membership, Project, Tenant
from tenants.scope import system_scope
from tests.api.world import Household, World, key_client, session_of

Endpoint = tuple[str, str]


@dataclass(frozen=True)
class Case:
    """How to ask an endpoint for something of ``household``; statuses a stranger may get for it."""

    path: Callable[[Household], str]
    statuses: tuple[int, ...]
    body: Callable[[Household], dict[str, Any]] | None = None
    headers: dict[str, str] | None = None
    shows_own: bool = False  # the owner's own answer holds marks: proof that the test can see a leak


def _fixed(path: str) -> Callable[[Household], str]:
    return lambda _household: path


CASES: dict[Endpoint, Case] = {
    ("GET", "/api/me"): Case(_fixed("/api/me"), (200,), shows_own=True),
    ("GET", "/api/projects"): Case(_fixed("/api/projects?limit=200"), (200,), shows_own=True),
    ("POST", "/api/projects"): Case(
        _fixed("/api/projects"), (201, 403, 409), body=lambda h: {"name": "copy"}
    ),
    ("GET", "/api/keys"): Case(_fixed("/api/keys?limit=200"), (200,), shows_own=True),
    ("POST", "/api/keys"): Case(
        _fixed("/api/keys"),
        (404, 403),
        body=lambda h: {"name": "spy", "project_id": h.project.id},
        headers={"Idempotency-Key": "same-for-all"},
    ),
    ("DELETE", "/api/keys/{key_id}"): Case(lambda h: f"/api/keys/{h.key.id}", (404, 403)),
    ("GET", "/api/balance"): Case(_fixed("/api/balance"), (200,), shows_own=True),
    ("GET", "/api/usage"): Case(_fixed("/api/usage?group_by=model"), (200,)),
    ("GET", "/api/receipts"): Case(_fixed("/api/receipts?limit=200"), (200,), shows_own=True),
    ("GET", "/api/receipts/{request_id}"): Case(
        lambda h: f"/api/receipts/{h.record.request_id}", (404,), shows_own=True
    ),
    ("POST", "/api/tenants/{tenant_id}/topups"): Case(
        lambda h: f"/api/tenants/{h.tenant.id}/topups",
        (403,),
        body=lambda h: {"amount": "1", "reference": "gift"},
        headers={"Idempotency-Key": "k"},
    ),
    ("GET", "/api/admin/partners"): Case(_fixed("/api/admin/partners"), (403,)),
    ("GET", "/api/admin/pools"): Case(_fixed("/api/admin/pools"), (403,)),
    ("GET", "/api/admin/workers"): Case(_fixed("/api/admin/workers"), (403,)),
    ("GET", "/api/admin/releases"): Case(_fixed("/api/admin/releases"), (403,)),
    ("GET", "/api/admin/tenants"): Case(_fixed("/api/admin/tenants"), (403,)),
    ("POST", "/api/session"): Case(
        _fixed("/api/session"), (401, 429), body=lambda h: {"email": h.owner.email, "password": "guess"}
    ),
    ("POST", "/api/workers/challenge"): Case(
        _fixed("/api/workers/challenge"), (401,), body=lambda h: {"token": h.secret}
    ),
    ("POST", "/api/workers/enrol"): Case(
        _fixed("/api/workers/enrol"), (422,), body=lambda h: {"token": h.secret}
    ),
    ("DELETE", "/api/session"): Case(_fixed("/api/session"), (204, 400)),  # last: it ends the session
}


def _documented() -> set[Endpoint]:
    paths = api.get_openapi_schema()["paths"]
    return {(method.upper(), path) for path, methods in paths.items() for method in methods}


def _ask(client: Client, endpoint: Endpoint, household: Household) -> Any:
    method, case = endpoint[0], CASES[endpoint]
    kwargs: dict[str, Any] = {"headers": case.headers or {}}
    if case.body is not None:
        kwargs |= {"data": case.body(household), "content_type": "application/json"}
    return getattr(client, method.lower())(case.path(household), **kwargs)


def _leaks(answer: HttpResponse, household: Household, asked: str) -> set[str]:
    """Marks in the body or headers, besides what the caller itself put into the question."""
    text = answer.content.decode() + str(answer.headers)
    return {mark for mark in household.marks() if mark in text and mark not in asked}


def _rows(tenant: Tenant) -> dict[str, list[Any]]:
    with system_scope():
        return {
            model.__name__: sorted(model.objects.filter(tenant_id=tenant.id).values_list(), key=str)
            for model in (Account, ApiKey, AuditEntry, Membership, Project, Transfer, UsageRecord)
        }


def test_every_documented_endpoint_has_a_case() -> None:
    assert _documented() == set(CASES)


@pytest.mark.parametrize("caller", ["owner", "viewer", "key"])
def test_no_endpoint_shows_or_changes_another_tenants_things(world: World, caller: str) -> None:
    ours, theirs = world.ours, world.theirs
    client = {
        "owner": lambda: session_of(ours.owner),
        "viewer": lambda: session_of(ours.viewer),
        "key": lambda: key_client(ours.secret),
    }[caller]()
    before = _rows(theirs.tenant)
    for endpoint, case in CASES.items():
        answer = _ask(client, endpoint, theirs)
        asked = case.path(theirs) + str(case.body(theirs) if case.body else "")
        assert answer.status_code in case.statuses, (endpoint, answer.content)
        assert _leaks(answer, theirs, asked) == set(), endpoint
    assert _rows(theirs.tenant) == before
    assert redis_client().keys(redis_keys.account(theirs.tenant.id)) == []


def test_the_owner_does_see_what_strangers_do_not(world: World) -> None:
    client = session_of(world.theirs.owner)
    for endpoint, case in CASES.items():
        if case.shows_own:
            answer = _ask(client, endpoint, world.theirs)
            assert answer.status_code == 200, (endpoint, answer.content)
            assert _leaks(answer, world.theirs, case.path(world.theirs)), endpoint
    usage = client.get("/api/usage?group_by=model").json()
    assert usage["total"]["requests"] == 1  # one of two in the database


def test_an_unknown_id_and_a_strangers_id_get_the_same_answer(world: World) -> None:
    client = session_of(world.ours.owner)
    for ask, known, unknown in (
        (client.delete, f"/api/keys/{world.theirs.key.id}", f"/api/keys/{world.theirs.key.id[:-1]}!"),
        (
            client.get,
            f"/api/receipts/{world.theirs.record.request_id}",
            f"/api/receipts/{world.theirs.record.request_id[:-1]}!",
        ),
    ):
        answers = [ask(known), ask(unknown)]
        assert [answer.status_code for answer in answers] == [404, 404]
        texts = [
            answer.json()["error"]["message"].replace(path.rpartition("/")[2], "ID")
            for answer, path in zip(answers, (known, unknown), strict=True)
        ]
        assert texts[0] == texts[1]


def test_without_credentials_nothing_opens(world: World) -> None:
    public = {"/api/session", "/api/workers/challenge", "/api/workers/enrol"}
    for endpoint, case in CASES.items():
        if endpoint[1] in public:
            continue
        for client in (Client(), key_client("tw-sk-wrong"), key_client(world.ours.secret[:-1] + "x")):
            answer = _ask(client, endpoint, world.theirs)
            assert answer.status_code == 401, endpoint
            assert _leaks(answer, world.theirs, case.path(world.theirs)) == set()


def test_admin_lists_are_for_people_of_the_foundation(world: World) -> None:
    client = session_of(world.admin)
    for endpoint in CASES:
        if endpoint[1].startswith("/api/admin/"):
            answer = _ask(client, endpoint, world.theirs)
            assert answer.status_code == 200, endpoint
            assert len(answer.json()["data"]) >= 1


def test_a_foundation_admin_reads_no_tenants_things_through_the_tenants_endpoints(world: World) -> None:
    client = session_of(world.admin)
    for endpoint in (("GET", "/api/keys"), ("GET", "/api/receipts/{request_id}"), ("GET", "/api/balance")):
        answer = _ask(client, endpoint, world.theirs)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "no_tenant")


def _pages(patterns: list[Any], prefix: str = "") -> Iterator[tuple[str, list[str]]]:
    """Every address that is not the API's, with the names of its parts."""
    for pattern in patterns:
        route = prefix + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            yield from _pages(pattern.url_patterns, route)
        elif isinstance(pattern, URLPattern) and not route.lstrip("^").startswith("api"):
            yield route, list(pattern.pattern.converters)


def test_no_page_shows_another_tenants_things(world: World) -> None:
    client, theirs = session_of(world.ours.owner), world.theirs
    values = {
        "key_id": theirs.key.id,
        "request_id": theirs.record.request_id,
        "tenant_id": theirs.tenant.id,
    }
    pages = list(_pages(get_resolver().url_patterns))
    assert len(pages) > 10
    for route, names in pages:
        path = f"/{route}"
        for name in names:
            path = path.replace(f"<str:{name}>", values[name])  # a new kind of part needs a value here
        answer = client.get(path)
        body = b"".join(answer) if answer.streaming else answer.content
        text = body.decode() + str(answer.headers)
        assert {mark for mark in theirs.marks() if mark in text and mark not in path} == set(), path
        assert answer.status_code < 500, path
