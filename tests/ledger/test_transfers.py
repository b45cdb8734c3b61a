"""Transfers balance, once per key, whatever happens at the same time."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connections
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.errors import ApiError
from core.ids import new_id
from ledger.models import Account, AccountKind, Transfer, TransferKind
from ledger.selectors import (
    accounts_off_balance,
    balances_total_nano,
    tenant_balance,
    tenant_transfers,
)
from ledger.services import account_ensure, tenant_grant, tenant_topup, transfer_post
from tenants.scope import system_scope, tenant_scope

pytestmark = pytest.mark.django_db(transaction=True)

MOVES = st.lists(
    st.tuples(st.integers(0, 3), st.integers(1, 3), st.integers(1, 10**15)), min_size=1, max_size=12
)


@pytest.fixture
def accounts() -> list[Account]:
    """One of each kind."""
    owners = ((AccountKind.TENANT, new_id("ten")), (AccountKind.PARTNER, new_id("par")))
    fixed = ((AccountKind.FOUNDATION, "foundation"), (AccountKind.EXTERNAL, "external"))
    with system_scope():
        return [account_ensure(kind=kind, owner_id=owner_id) for kind, owner_id in (*owners, *fixed)]


def _move(debit: Account, credit: Account, amount_nano: int, key: str) -> Transfer:
    return transfer_post(
        debit=debit,
        credit=credit,
        amount_nano=amount_nano,
        kind=TransferKind.ADJUSTMENT,
        reference="test",
        idempotency_key=key,
    )


@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(moves=MOVES, in_bulk=st.booleans())
def test_all_accounts_sum_to_zero_after_any_transfers(
    accounts: list[Account], moves: list[tuple[int, int, int]], in_bulk: bool
) -> None:
    with system_scope():
        before = {account.id: account for account in Account.objects.all()}
        expected = {account_id: account.balance_nano for account_id, account in before.items()}
        drafts = []
        for source, step, amount_nano in moves:
            debit, credit = accounts[source], accounts[(source + step) % 4]
            expected[debit.id] -= amount_nano
            expected[credit.id] += amount_nano
            drafts.append(
                Transfer(
                    debit_account=debit,
                    credit_account=credit,
                    amount_nano=amount_nano,
                    kind=TransferKind.ADJUSTMENT,
                    reference="test",
                    idempotency_key=new_id("trf"),
                )
            )
        if in_bulk:  # one statement, as the meter posts
            Transfer.objects.bulk_create(drafts)
        else:
            for draft in drafts:
                draft.save(force_insert=True)
        after = {account.id: account for account in Account.objects.all()}
        assert {account_id: account.balance_nano for account_id, account in after.items()} == expected
        for account_id, account in after.items():
            touched = account_id in {d.debit_account_id for d in drafts} | {
                d.credit_account_id for d in drafts
            }
            assert (account.version > before[account_id].version) == touched
        assert balances_total_nano() == 0
        assert accounts_off_balance() == []


def test_a_key_posts_once(accounts: list[Account]) -> None:
    tenant, partner, foundation, _external = accounts
    with system_scope():
        first = _move(foundation, tenant, 700, "k")
        assert _move(foundation, tenant, 700, "k").id == first.id
        for debit, credit, amount_nano in (
            (foundation, tenant, 701),
            (partner, tenant, 700),
            (foundation, partner, 700),
        ):
            with pytest.raises(ApiError) as caught:
                _move(debit, credit, amount_nano, "k")
            assert (caught.value.status, caught.value.code) == (409, "idempotency_key_reused")
        assert Transfer.objects.count() == 1
        assert tenant_balance(tenant_id=tenant.owner_id).balance_nano == 700


def test_nonsense_is_refused_before_the_database_and_by_it(accounts: list[Account]) -> None:
    tenant, _partner, foundation, _external = accounts
    with system_scope():
        for amount_nano in (0, -1):
            with pytest.raises(ValueError, match="positive"):
                _move(foundation, tenant, amount_nano, "k")
        with pytest.raises(ValueError, match="two accounts"):
            _move(tenant, tenant, 1, "k")


def test_opposite_transfers_at_once_neither_deadlock_nor_lose(accounts: list[Account]) -> None:
    tenant, partner, foundation, _external = accounts
    ways = ((tenant, partner), (partner, tenant), (foundation, tenant), (partner, foundation))
    together = threading.Barrier(len(ways))

    def shuffle(way: int) -> None:
        try:
            together.wait(10)
            for step in range(12):
                debit, credit = ways[(way + step) % len(ways)]
                with system_scope():
                    _move(debit, credit, 10 + way, f"{way}-{step}")
                    _move(credit, debit, 3, f"{way}-{step}-back")
        finally:
            connections.close_all()

    with ThreadPoolExecutor(len(ways)) as pool:
        for future in [pool.submit(shuffle, way) for way in range(len(ways))]:
            future.result()
    with system_scope():
        assert Transfer.objects.count() == 4 * 12 * 2
        assert balances_total_nano() == 0
        assert accounts_off_balance() == []


def test_the_same_key_at_once_posts_once(accounts: list[Account]) -> None:
    tenant, _partner, foundation, _external = accounts
    together = threading.Barrier(4)

    def post() -> str:
        try:
            together.wait(10)
            with system_scope():
                return _move(foundation, tenant, 500, "same").id
        finally:
            connections.close_all()

    with ThreadPoolExecutor(4) as pool:
        ids = {future.result() for future in [pool.submit(post) for _ in range(4)]}
    assert len(ids) == 1
    with system_scope():
        assert tenant_balance(tenant_id=tenant.owner_id).balance_nano == 500


def test_topups_come_from_outside_and_grants_from_the_foundation(accounts: list[Account]) -> None:
    tenant_id = accounts[0].owner_id
    with system_scope():
        tenant_topup(tenant_id=tenant_id, amount_nano=900, idempotency_key="k", reference="invoice 1")
        tenant_grant(tenant_id=tenant_id, amount_nano=100, idempotency_key="k", reference="welcome")
        balances = {account.kind: account.balance_nano for account in Account.objects.all()}
    assert balances == {"tenant": 1000, "partner": 0, "foundation": -100, "external": -900}
    with tenant_scope(tenant_id):
        assert tenant_balance(tenant_id=tenant_id).balance_nano == 1000
        assert [row.kind for row in tenant_transfers(tenant_id=tenant_id)] == ["grant", "topup"]
    with tenant_scope(new_id("ten")):
        assert tenant_balance(tenant_id=tenant_id).balance_nano == 0
        assert tenant_transfers(tenant_id=tenant_id) == []


def test_accounts_are_opened_once(accounts: list[Account]) -> None:
    with system_scope():
        again = account_ensure(kind=AccountKind.TENANT, owner_id=accounts[0].owner_id)
        assert again.id == accounts[0].id
        assert Account.objects.count() == 4
