"""Who may open which page. The list of pages comes from the URLs, so a new one cannot be forgotten."""

from __future__ import annotations

import pytest
from django.db import OperationalError
from django.test import Client
from django.urls import URLPattern, reverse

from console.urls import urlpatterns
from tests.console.world import World

OPEN_TO_ALL = {"landing", "sign-in", "sign-out"}
FOUNDATION = {"partners", "pools", "releases", "tenants", "topup"}
POST_ONLY = {"sign-out", "tenant-switch", "playground-stream", "topup"}
NAMES = sorted(pattern.name or "" for pattern in urlpatterns if isinstance(pattern, URLPattern))


def url_of(name: str) -> str:
    arguments = {
        "key-row": ["key_none"],
        "key-revoke": ["key_none"],
        "playground-outcome": ["req_none"],
        "receipt": ["req_none"],
        "receipt-json": ["req_none"],
        "topup": ["ten_none"],
    }
    return reverse(f"console:{name}", args=arguments.get(name))


@pytest.mark.parametrize("name", [name for name in NAMES if name not in OPEN_TO_ALL])
def test_strangers_are_sent_to_sign_in(name: str, world: World) -> None:
    client = Client()
    response = client.post(url_of(name)) if name in POST_ONLY else client.get(url_of(name))
    if name == "playground-stream":  # its caller is a script, which shows the message
        assert response.status_code in (400, 401)
        return
    assert response.status_code == 302
    assert response["Location"].startswith("/sign-in?next=")


@pytest.mark.parametrize("name", sorted(FOUNDATION))
def test_foundation_pages_are_closed_to_tenants(name: str, owner_client: Client) -> None:
    response = owner_client.post(url_of(name)) if name in POST_ONLY else owner_client.get(url_of(name))
    assert response.status_code == 403
    assert "Only foundation admins" in response.content.decode()


@pytest.mark.parametrize("name", sorted(FOUNDATION - POST_ONLY))
def test_foundation_pages_open_to_admins(name: str, admin_client: Client) -> None:
    response = admin_client.get(url_of(name))
    assert response.status_code == 200
    assert response["Cache-Control"] == "no-store"


@pytest.mark.parametrize("name", ["playground", "keys", "usage", "bill"])
def test_tenant_pages_open_to_members_only(name: str, owner_client: Client, admin_client: Client) -> None:
    assert owner_client.get(url_of(name)).status_code == 200
    assert admin_client.get(url_of(name)).status_code == 404  # belongs to no organisation


def test_pages_name_the_signed_in_person_and_organisation(owner_client: Client) -> None:
    page = owner_client.get(url_of("keys")).content.decode()
    assert "owner@demo.test" in page
    assert "Demo Startup" in page
    assert "Rival Labs" not in page
    assert "Foundation</h2>" not in page


def test_pages_allow_no_foreign_or_inline_script(owner_client: Client) -> None:
    response = owner_client.get(url_of("playground"))
    policy = response["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "unsafe-inline" not in policy
    page = response.content.decode()
    assert "<script>" not in page
    assert " style=" not in page
    assert " onclick=" not in page


def test_htmx_parts_move_the_whole_page_to_sign_in(world: World) -> None:
    response = Client().get(url_of("pools"), headers={"HX-Request": "true"})
    assert response["HX-Redirect"].startswith("/sign-in?next=")


def test_unknown_addresses_answer_in_the_same_design(world: World) -> None:
    response = Client().get("/console/nowhere")
    assert response.status_code == 404
    assert "There is nothing here" in response.content.decode()


def test_front_page_names_the_offers_of_today(world: World) -> None:
    page = Client().get("/").content.decode()
    for expected in ("Huawei Cloud", "$0.10", "Tencent Cloud", "$0.12", "Alibaba Cloud", "$0.14"):
        assert expected in page


def test_a_fault_answers_in_the_same_design(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    client = world.client_of(world.owner)
    client.raise_request_exception = False
    monkeypatch.setattr("console.views.bill.bill_total", lambda **_: 1 / 0)
    response = client.get("/console/bill")
    assert response.status_code == 500
    assert "Something went wrong on our side" in response.content.decode()
    assert "ZeroDivisionError" not in response.content.decode()


def test_a_database_that_is_away_is_told_in_words(
    owner_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(**_: object) -> None:
        raise OperationalError("connection refused on 10.0.0.1")

    monkeypatch.setattr("console.views.bill.bill_total", away)
    response = owner_client.get("/console/bill")
    assert response.status_code == 503
    assert int(response["retry-after"]) >= 1
    page = response.content.decode()
    assert "The database does not answer now" in page
    assert "10.0.0.1" not in page


@pytest.mark.parametrize("path", ["/console/bill?before=%00", "/console/receipts/%00"])
def test_a_zero_byte_is_refused_not_a_fault(owner_client: Client, path: str) -> None:
    assert owner_client.get(path).status_code in (404, 422)
