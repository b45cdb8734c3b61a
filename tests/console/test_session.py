"""Signing in and out, switching organisation, and forms from elsewhere."""

from __future__ import annotations

import pytest
from django.conf import settings
from django.test import Client

from tenants.models import Role, SignInWindow
from tenants.scope import system_scope
from tenants.services import membership_add
from tests.console.world import PASSWORD, World


def _visible(page: bytes, email: str) -> str:
    """The page without what differs anyway: the typed email and the form's token."""
    lines = page.decode().replace(email, "").splitlines()
    return "\n".join(line for line in lines if "csrfmiddlewaretoken" not in line)


@pytest.fixture(autouse=True)
def no_attempts_yet(world: World) -> None:
    """Each test begins with its full number of attempts."""
    with system_scope():
        SignInWindow.objects.all().delete()


def test_sign_in_opens_the_console_and_renews_the_session(world: World) -> None:
    client = Client()
    client.get("/sign-in")
    response = client.post("/sign-in", {"email": " Owner@Demo.test ", "password": PASSWORD})
    assert response["Location"] == "/console/"
    first = client.cookies[settings.SESSION_COOKIE_NAME].value
    client.post("/sign-out")
    client.post("/sign-in", {"email": "owner@demo.test", "password": PASSWORD})
    assert client.cookies[settings.SESSION_COOKIE_NAME].value != first


def test_refusals_do_not_tell_whether_the_account_exists(world: World) -> None:
    closed = world.person("closed@demo.test")
    with system_scope():
        closed.is_active = False
        closed.save(update_fields=["is_active"])
    pages = []
    for email, password in (
        ("owner@demo.test", "wrong password!"),
        ("nobody@demo.test", PASSWORD),
        ("closed@demo.test", PASSWORD),
    ):
        response = Client().post("/sign-in", {"email": email, "password": password})
        assert response.status_code == 401
        pages.append(_visible(response.content, email))
    assert pages[0] == pages[1] == pages[2]
    assert "Email or password is wrong" in pages[0]


def test_many_attempts_are_refused_even_with_the_right_password(world: World) -> None:
    client = Client()
    for _ in range(10):
        client.post("/sign-in", {"email": "owner@demo.test", "password": "wrong password!"})
    response = client.post("/sign-in", {"email": "owner@demo.test", "password": PASSWORD})
    assert response.status_code == 429
    assert int(response["retry-after"]) > 0
    assert settings.SESSION_COOKIE_NAME not in client.cookies


@pytest.mark.parametrize(
    ("wanted", "location"),
    [
        ("/console/bill", "/console/bill"),
        ("https://elsewhere.test/", "/console/"),
        ("//elsewhere.test/", "/console/"),
        ("javascript:alert(1)", "/console/"),
    ],
)
def test_sign_in_leads_back_to_this_site_only(wanted: str, location: str, world: World) -> None:
    form = {"email": "owner@demo.test", "password": PASSWORD, "next": wanted}
    assert Client().post("/sign-in", form)["Location"] == location


def test_sign_out_ends_the_session(owner_client: Client) -> None:
    assert owner_client.get("/console/bill").status_code == 200
    assert owner_client.post("/sign-out")["Location"] == "/"
    assert owner_client.get("/console/bill").status_code == 302


def test_sign_out_wants_a_form_not_a_link(owner_client: Client) -> None:
    assert owner_client.get("/sign-out").status_code == 405
    assert owner_client.get("/console/bill").status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/sign-in",
        "/sign-out",
        "/console/tenant",
        "/console/keys",
        "/console/keys/key_none/revoke",
        "/console/playground/stream",
        "/console/foundation/tenants/ten_none/topup",
    ],
)
def test_forms_from_elsewhere_are_refused(path: str, world: World) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(world.owner)
    response = client.post(path, {})
    assert response.status_code == 403
    assert "older than your session" in response.content.decode()


def test_the_chosen_organisation_is_one_of_ones_own(world: World) -> None:
    person = world.person("consultant@demo.test")
    client = world.client_of(person)
    client.post("/console/tenant", {"tenant": world.other_tenant.id})
    assert "Rival Labs" not in client.get("/console/keys").content.decode()
    with system_scope():
        membership_add(tenant_id=world.other_tenant.id, user_id=person.id, role=Role.VIEWER, actor="test")
    client.post("/console/tenant", {"tenant": world.other_tenant.id})
    page = client.get("/console/keys").content.decode()
    assert f'<option value="{world.other_tenant.id}" selected>' in page
    assert "Create key" not in page  # a viewer there
