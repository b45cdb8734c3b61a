"""Usage records against the ledger: every share, levy and charge moved, and nothing but them."""

from __future__ import annotations

from dataclasses import dataclass

from django.db import connections

from ledger.selectors import accounts_off_balance, balances_total_nano
from tenants.scope import SYSTEM, system_scope

# Three views of the same money, each as (whose, by the records, by the ledger).
_SUMS = """
    WITH record AS (SELECT tenant_id, partner_id, share_nano, levy_nano FROM metering_usagerecord),
    moved AS (
        SELECT transfer.kind, transfer.tenant_id, credit.owner_id, transfer.amount_nano
        FROM ledger_transfer AS transfer
        JOIN ledger_account AS credit ON credit.id = transfer.credit_account_id
        WHERE transfer.kind IN ('usage_share', 'usage_levy')
    ),
    line AS (
        SELECT 'partner ' || partner_id AS whose, share_nano AS recorded, 0 AS posted FROM record
        UNION ALL SELECT 'partner ' || owner_id, 0, amount_nano FROM moved WHERE kind = 'usage_share'
        UNION ALL SELECT 'foundation', levy_nano, 0 FROM record
        UNION ALL SELECT 'foundation', 0, amount_nano FROM moved WHERE kind = 'usage_levy'
        UNION ALL SELECT 'tenant ' || tenant_id, share_nano + levy_nano, 0 FROM record
        UNION ALL SELECT 'tenant ' || tenant_id, 0, amount_nano FROM moved
    )
    SELECT whose, sum(recorded)::bigint, sum(posted)::bigint FROM line GROUP BY whose ORDER BY whose
"""


@dataclass(frozen=True, slots=True)
class MoneySum:
    """What usage records say ``whose`` usage is worth, and what the ledger moved for it."""

    whose: str
    recorded_nano: int
    posted_nano: int

    @property
    def agrees(self) -> bool:
        """Whether both are the same to the nano-dollar."""
        return self.recorded_nano == self.posted_nano


@dataclass(frozen=True, slots=True)
class LedgerTally:
    """Sums by owner, and the ledger's own invariants: total 0, every balance = credits − debits."""

    sums: tuple[MoneySum, ...]
    total_nano: int
    off_balance: tuple[str, ...]

    @property
    def agrees(self) -> bool:
        """Whether every sum agrees and the ledger balances."""
        return self.total_nano == 0 and not self.off_balance and all(line.agrees for line in self.sums)


def ledger_tally() -> LedgerTally:
    """Read it all in one snapshot of the database: a posting meanwhile must not look like an error."""
    with system_scope(), connections[SYSTEM].cursor() as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        cursor.execute(_SUMS)
        sums = tuple(MoneySum(*row) for row in cursor.fetchall())
        return LedgerTally(
            sums=sums,
            total_nano=balances_total_nano(),
            off_balance=tuple(account.id for account in accounts_off_balance()),
        )
