"""The database itself keeps tenants apart: every table, both roles, no way around."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql

from core.ids import new_id
from stack.roles import RoleUrls
from tenants.models import ApiKey, Membership, Project, Role, Tenant, User
from tenants.scope import system_scope, tenant_scope, user_scope
from tenants.services import membership_add, project_create, tenant_create, user_create

writes = pytest.mark.django_db(transaction=True)  # the others only read, and need no reset after them
pytestmark = pytest.mark.usefixtures("django_db_setup")

OF_A_TENANT = """
    SELECT c.relname, c.relrowsecurity, c.relforcerowsecurity FROM pg_class AS c
    JOIN pg_namespace AS n ON n.oid = c.relnamespace AND n.nspname = 'public'
    WHERE c.relkind IN ('r', 'p') AND (c.relname = 'tenants_tenant' OR EXISTS (
        SELECT 1 FROM pg_attribute AS a WHERE a.attrelid = c.oid AND a.attname = 'tenant_id'))
"""
KNOWN = {
    "tenants_tenant", "tenants_membership", "tenants_project", "tenants_apikey", "tenants_auditentry",
    "tenants_idempotentanswer", "ledger_account", "ledger_transfer", "metering_usagerecord",
}  # fmt: skip


@pytest.fixture
def app(postgres_urls: RoleUrls) -> Iterator[psycopg.Connection[Any]]:
    """The role that serves tenants, without Django."""
    with psycopg.connect(postgres_urls.app) as connection:
        yield connection
        connection.rollback()


@pytest.fixture
def system(postgres_urls: RoleUrls) -> Iterator[psycopg.Connection[Any]]:
    """The role of meter and directory, without Django."""
    with psycopg.connect(postgres_urls.system) as connection:
        yield connection
        connection.rollback()


@pytest.fixture
def pair() -> tuple[Tenant, Tenant]:
    """Two tenants, each with a project, a key and a member."""
    return _tenant("a"), _tenant("b")


def _tenant(slug: str) -> Tenant:
    with system_scope():
        tenant = tenant_create(name=slug, slug=slug, actor="test")
        user = User.objects.create(email=f"{slug}@test.example", password="!")
        membership_add(tenant_id=tenant.id, user_id=user.id, role=Role.OWNER, actor="test")
        project = project_create(tenant_id=tenant.id, name=slug, actor="test")
        ApiKey.objects.create(tenant=tenant, project=project, name=slug, display=slug, digest=slug)
    return tenant


def test_every_table_of_a_tenant_is_under_row_security(system: psycopg.Connection[Any]) -> None:
    tables = {name: (on, forced) for name, on, forced in system.execute(OF_A_TENANT)}
    assert set(tables) >= KNOWN
    assert {name for name, switches in tables.items() if switches != (True, True)} == set()


@writes
def test_every_table_of_a_tenant_is_empty_outside_a_scope(
    app: psycopg.Connection[Any], pair: tuple[Tenant, Tenant]
) -> None:
    for table, *_switches in app.execute(OF_A_TENANT).fetchall():
        count = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))
        assert app.execute(count).fetchone() == (0,), table
    with system_scope():
        assert Tenant.objects.count() == 2


@writes
def test_a_scope_sees_its_own_rows_only(pair: tuple[Tenant, Tenant]) -> None:
    ours, theirs = pair
    with tenant_scope(ours.id):
        for model in (Project, ApiKey, Membership):
            assert {row.tenant_id for row in model.objects.all()} == {ours.id}, model
        assert [tenant.id for tenant in Tenant.objects.all()] == [ours.id]
        assert not Project.objects.filter(tenant_id=theirs.id).exists()
    assert not Project.objects.exists()


@writes
def test_a_person_sees_own_memberships_and_their_tenants(pair: tuple[Tenant, Tenant]) -> None:
    ours, _theirs = pair
    with system_scope():
        user = Membership.objects.get(tenant=ours).user
    with user_scope(user.id):
        assert [row.tenant_id for row in Membership.objects.all()] == [ours.id]
        assert [tenant.id for tenant in Tenant.objects.all()] == [ours.id]
        assert not Project.objects.exists()


@writes
def test_writing_for_another_tenant_is_refused(
    app: psycopg.Connection[Any], pair: tuple[Tenant, Tenant]
) -> None:
    ours, theirs = pair
    insert = "INSERT INTO tenants_project (id, tenant_id, name, created_at) VALUES (%s, %s, 'x', now())"
    app.execute("SELECT set_config('tokenworks.tenant_id', %s, true)", (ours.id,))
    app.execute(insert, (new_id("prj"), ours.id))
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
        app.execute(insert, (new_id("prj"), theirs.id))


@writes
def test_revoking_another_tenants_key_changes_nothing(pair: tuple[Tenant, Tenant]) -> None:
    ours, theirs = pair
    with tenant_scope(ours.id):
        changed = ApiKey.objects.filter(tenant_id=theirs.id).update(revoked_at=theirs.created_at)
        assert changed == 0
    with system_scope():
        assert ApiKey.objects.get(tenant=theirs).revoked_at is None


@writes
def test_a_nested_scope_hands_back_the_outer_one(pair: tuple[Tenant, Tenant]) -> None:
    ours, theirs = pair
    with tenant_scope(ours.id):
        with tenant_scope(theirs.id):
            assert Project.objects.get().tenant_id == theirs.id
        assert Project.objects.get().tenant_id == ours.id
        with pytest.raises(ZeroDivisionError), tenant_scope(theirs.id):
            raise ZeroDivisionError
        assert Project.objects.get().tenant_id == ours.id
        with system_scope():
            assert Project.objects.count() == 2
        assert Project.objects.count() == 1


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE tenants_project DISABLE ROW LEVEL SECURITY",
        "ALTER TABLE tenants_project NO FORCE ROW LEVEL SECURITY",
        "DROP POLICY app ON tenants_project",
        "CREATE POLICY mine ON tenants_project USING (true)",
        "ALTER TABLE tenants_project ADD COLUMN x int",
        "DROP TABLE tenants_project",
        "TRUNCATE tenants_project",
        "CREATE TABLE mine (x int)",
        "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "SET ROLE tokenworks_owner",
        "SET session_replication_role = replica",
        "ALTER ROLE tokenworks_app BYPASSRLS",
        "ALTER TABLE ledger_transfer DISABLE TRIGGER post",
        "CREATE OR REPLACE FUNCTION ledger_post() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN END'",
    ],
)
@pytest.mark.parametrize("role", ["app", "system"])
def test_no_role_at_run_time_can_lift_the_rules(postgres_urls: RoleUrls, role: str, statement: str) -> None:
    with psycopg.connect(getattr(postgres_urls, role)) as connection:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(statement)
        connection.rollback()


def test_the_app_role_cannot_become_the_system_role(app: psycopg.Connection[Any]) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        app.execute("SET ROLE tokenworks_system")


@writes
def test_asking_for_no_row_security_is_an_error_not_a_way_in(
    app: psycopg.Connection[Any], pair: tuple[Tenant, Tenant]
) -> None:
    app.execute("SET row_security = off")
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
        app.execute("SELECT count(*) FROM tenants_project")


@pytest.mark.parametrize("role", ["app", "system"])
def test_roles_at_run_time_own_nothing_and_bypass_nothing(postgres_urls: RoleUrls, role: str) -> None:
    with psycopg.connect(getattr(postgres_urls, role)) as connection:
        attributes = connection.execute(
            "SELECT rolsuper, rolbypassrls, rolcreaterole, rolcreatedb FROM pg_roles"
            " WHERE rolname = current_user"
        ).fetchone()
        assert attributes == (False, False, False, False)
        owned = connection.execute("SELECT relname FROM pg_class WHERE relowner = current_user::regrole")
        assert owned.fetchall() == []
        member_of = connection.execute("SELECT 1 FROM pg_auth_members WHERE member = current_user::regrole")
        assert member_of.fetchall() == []


@pytest.mark.parametrize(
    "query",
    [
        "SELECT password FROM tenants_user",
        "SELECT * FROM tenants_user",
        "SELECT * FROM partners_enrolmenttoken",
        "SELECT * FROM partners_worker",
        "SELECT * FROM django_session",
        "SELECT * FROM tenants_signinwindow",
        "UPDATE tenants_tenant SET name = 'x'",
        "INSERT INTO tenants_membership SELECT * FROM tenants_membership",
        "UPDATE tenants_apikey SET digest = 'x'",
        "DELETE FROM tenants_apikey",
        "UPDATE tenants_auditentry SET actor = 'x'",
        "DELETE FROM tenants_auditentry",
        "INSERT INTO ledger_transfer SELECT * FROM ledger_transfer",
        "INSERT INTO ledger_account SELECT * FROM ledger_account",
        "UPDATE ledger_account SET balance_nano = 1",
        "INSERT INTO metering_usagerecord SELECT * FROM metering_usagerecord",
        "INSERT INTO partners_offer SELECT * FROM partners_offer",
        "INSERT INTO governance_charter SELECT * FROM governance_charter",
        "UPDATE releases_release SET state = 'retired'",
    ],
)
def test_the_app_role_has_no_right_it_does_not_need(app: psycopg.Connection[Any], query: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied"):
        app.execute(query)


@writes
def test_a_tenant_sees_the_names_of_its_members_and_of_nobody_else(pair: tuple[Tenant, Tenant]) -> None:
    ours, _theirs = pair
    with tenant_scope(ours.id):
        emails = Membership.objects.select_related("user").only("id", "user__id", "user__email")
        assert [row.user.email for row in emails] == ["a@test.example"]
        assert list(User.objects.using("default").values_list("email", flat=True)) == ["a@test.example"]


@writes
def test_people_are_stored_with_lower_case_emails() -> None:
    with system_scope():
        user = user_create(email=" Someone@Example.ORG ", password="long enough password")
    assert user.email == "someone@example.org"
