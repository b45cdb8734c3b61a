"""What the database refuses, whoever asks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from core.ids import new_id
from stack.roles import RoleUrls

commits = pytest.mark.django_db(transaction=True)  # the others roll back, and need no reset after them
pytestmark = pytest.mark.usefixtures("django_db_setup")

POST = """
    INSERT INTO ledger_transfer
        (id, debit_account_id, credit_account_id, amount_nano, kind, reference, idempotency_key, posted_at)
    VALUES (%s, %s, %s, %s, %s, 'test', %s, now())
"""
OPEN = """
    INSERT INTO ledger_account (id, kind, owner_id, tenant_id, balance_nano, version)
    VALUES (%s, %s, %s, %s, %s, %s)
"""


@pytest.fixture
def system(postgres_urls: RoleUrls) -> Iterator[psycopg.Connection[Any]]:
    """The role that posts; what it does is rolled back."""
    with psycopg.connect(postgres_urls.system) as connection:
        yield connection
        connection.rollback()


@pytest.fixture
def pair(system: psycopg.Connection[Any]) -> tuple[str, str]:
    """Two accounts and a transfer of 5 between them."""
    left, right = new_id("acc"), new_id("acc")
    system.execute(OPEN, (left, "partner", left, None, 0, 0))
    system.execute(OPEN, (right, "external", right, None, 0, 0))
    system.execute(POST, (new_id("trf"), right, left, 5, "adjustment", "first"))
    return left, right


def _refused(
    system: psycopg.Connection[Any], error: type[psycopg.Error], statement: str, *values: object
) -> None:
    with pytest.raises(error), system.transaction():
        system.execute(statement, values)


def _balances(system: psycopg.Connection[Any], pair: tuple[str, str]) -> list[tuple[int, int]]:
    query = "SELECT balance_nano, version FROM ledger_account WHERE id = %s"
    return [system.execute(query, (account_id,)).fetchone() or (0, 0) for account_id in pair]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE ledger_account SET balance_nano = 10",
        "UPDATE ledger_account SET version = 10",
        "DELETE FROM ledger_account",
        "UPDATE ledger_transfer SET amount_nano = 10",
        "DELETE FROM ledger_transfer",
        "TRUNCATE ledger_transfer",
        "SELECT ledger_post()",
    ],
)
def test_the_posting_role_cannot_edit(
    system: psycopg.Connection[Any], pair: tuple[str, str], statement: str
) -> None:
    _refused(system, psycopg.Error, statement)
    assert _balances(system, pair) == [(5, 1), (-5, 1)]


@commits
@pytest.mark.parametrize("table", ["ledger_transfer", "tenants_auditentry"])
def test_even_the_owner_cannot_edit_what_is_append_only(
    postgres_superuser_url: str, system: psycopg.Connection[Any], pair: tuple[str, str], table: str
) -> None:
    system.execute(
        "INSERT INTO tenants_auditentry (id, actor, action, object_id, data, at)"
        " VALUES (%s, 'a', 'b', 'c', '{}', now())",
        (new_id("aud"),),
    )
    system.commit()
    with psycopg.connect(postgres_superuser_url, autocommit=True) as superuser:
        for statement in (f"DELETE FROM {table}", f"UPDATE {table} SET id = 'x'"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
                superuser.execute(statement)


@commits
def test_the_owner_sees_no_tenants_rows(
    postgres_urls: RoleUrls, system: psycopg.Connection[Any], pair: tuple[str, str]
) -> None:
    system.commit()
    with psycopg.connect(postgres_urls.owner) as owner:
        assert owner.execute("SELECT count(*) FROM ledger_transfer").fetchone() == (0,)


@pytest.mark.parametrize(
    ("amount_nano", "kind"), [(0, "adjustment"), (-1, "adjustment"), (2**63, "adjustment"), (1, "gift")]
)
def test_transfers_that_make_no_sense_are_refused(
    system: psycopg.Connection[Any], pair: tuple[str, str], amount_nano: int, kind: str
) -> None:
    left, right = pair
    _refused(system, psycopg.Error, POST, new_id("trf"), left, right, amount_nano, kind, "second")
    assert _balances(system, pair) == [(5, 1), (-5, 1)]


def test_a_transfer_has_two_accounts_and_its_own_key(
    system: psycopg.Connection[Any], pair: tuple[str, str]
) -> None:
    left, right = pair
    system.execute("SET CONSTRAINTS ALL IMMEDIATE")
    same, twice, lost = (left, "second"), (right, "first"), (new_id("acc"), "second")
    for error, (credit, key) in (
        (psycopg.errors.CheckViolation, same),
        (psycopg.errors.UniqueViolation, twice),
        (psycopg.errors.ForeignKeyViolation, lost),
    ):
        _refused(system, error, POST, new_id("trf"), left, credit, 1, "adjustment", key)
    assert _balances(system, pair) == [(5, 1), (-5, 1)]


def test_accounts_are_opened_empty_and_named_rightly(system: psycopg.Connection[Any]) -> None:
    tenant_id, privilege = new_id("ten"), psycopg.errors.InsufficientPrivilege
    _refused(system, privilege, OPEN, new_id("acc"), "external", "e", None, 1, 0)
    _refused(system, privilege, OPEN, new_id("acc"), "external", "e", None, 0, 1)
    for kind, owner_id, of_tenant in (
        ("tenant", tenant_id, None),
        ("tenant", tenant_id, new_id("ten")),
        ("partner", "par_1", tenant_id),
        ("bank", "b", None),
    ):
        check = psycopg.errors.CheckViolation
        _refused(system, check, OPEN, new_id("acc"), kind, owner_id, of_tenant, 0, 0)


def test_a_failed_transaction_moves_nothing(system: psycopg.Connection[Any], pair: tuple[str, str]) -> None:
    left, right = pair

    def post_twice() -> None:
        with system.transaction():
            system.execute(POST, (new_id("trf"), left, right, 3, "adjustment", "second"))
            assert _balances(system, pair) == [(2, 2), (-2, 2)]
            system.execute(POST, (new_id("trf"), left, right, 3, "adjustment", "second"))

    with pytest.raises(psycopg.errors.UniqueViolation):
        post_twice()
    assert _balances(system, pair) == [(5, 1), (-5, 1)]
