"""Reads of the ledger, in the caller's scope."""

from __future__ import annotations

from collections.abc import Sequence

from django.db.models import Sum

from ledger.bulk import Balance
from ledger.models import Account, AccountKind, Transfer


def tenant_balance(*, tenant_id: str) -> Balance:
    """The tenant's balance; nothing yet when no account was opened."""
    account = Account.objects.filter(kind=AccountKind.TENANT, owner_id=tenant_id).first()
    return Balance(account.balance_nano, account.version) if account else Balance(0, 0)


def tenant_balances_nano(*, tenant_ids: Sequence[str]) -> dict[str, int]:
    """Balances by tenant id; tenants without an account are absent."""
    accounts = Account.objects.filter(kind=AccountKind.TENANT, owner_id__in=tenant_ids)
    return dict(accounts.values_list("owner_id", "balance_nano"))


def balances_total_nano() -> int:
    """The sum over all accounts: 0, or the ledger is broken. System scope."""
    return int(Account.objects.aggregate(total=Sum("balance_nano"))["total"] or 0)


def accounts_off_balance() -> Sequence[Account]:
    """Accounts whose balance differs from credits − debits: none, or the ledger is broken. System scope."""
    return list(
        Account.objects.raw(
            """
            SELECT account.* FROM ledger_account AS account
            LEFT JOIN (
                SELECT account_id, sum(amount_nano) AS total FROM (
                    SELECT debit_account_id AS account_id, -amount_nano AS amount_nano FROM ledger_transfer
                    UNION ALL SELECT credit_account_id, amount_nano FROM ledger_transfer
                ) AS leg GROUP BY account_id
            ) AS moved ON moved.account_id = account.id
            WHERE account.balance_nano <> coalesce(moved.total, 0)
            """
        )
    )


def tenant_transfers(*, tenant_id: str, limit: int = 100) -> Sequence[Transfer]:
    """The tenant's transfers, newest first."""
    return list(Transfer.objects.filter(tenant_id=tenant_id).order_by("-posted_at", "-id")[:limit])
