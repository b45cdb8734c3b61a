"""Many transfers in one statement, for the meter: psycopg instead of the ORM, because it is the hot loop.

The caller owns the transaction, and commits the reason for the transfers (its usage records) with them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import psycopg

from core.clock import clock
from core.ids import new_ids
from ledger.arrays import number_array, text_array

_INSERT = """
    INSERT INTO ledger_transfer (id, debit_account_id, credit_account_id, amount_nano, kind, reference,
                                 idempotency_key, tenant_id, posted_at)
    SELECT draft.*, %s FROM unnest(%s::text[], %s::text[], %s::text[], %s::bigint[], %s::text[], %s::text[],
                                   %s::text[], %s::text[]) AS draft
"""
_ACCOUNTS = """
    SELECT account.kind, account.owner_id, account.id FROM ledger_account AS account
    JOIN unnest(%s::text[], %s::text[]) AS wanted (kind, owner_id) USING (kind, owner_id)
"""
_BALANCES = """
    SELECT tenant_id, balance_nano, version FROM ledger_account
    WHERE kind = 'tenant' AND owner_id = ANY(%s::text[])
"""

Owner = tuple[str, str]


class TransferDraft(NamedTuple):
    """A transfer to be: from the account ``debit`` to ``credit`` (ids), ``amount_nano`` > 0."""

    debit: str
    credit: str
    amount_nano: int
    kind: str
    reference: str
    idempotency_key: str
    tenant_id: str


@dataclass(frozen=True, slots=True)
class Balance:
    """A tenant's account as the running transaction sees it; ``version`` grows with every change."""

    balance_nano: int
    version: int


def transfers_insert(cursor: psycopg.Cursor[Any], drafts: Sequence[TransferDraft]) -> None:
    """Insert ``drafts``; the database's trigger moves the balances. Raises IntegrityError when one exists."""
    if not drafts:
        return
    cursor.execute(
        _INSERT,
        (
            clock.now(),
            text_array(new_ids("trf", len(drafts))),
            text_array(draft.debit for draft in drafts),
            text_array(draft.credit for draft in drafts),
            number_array(draft.amount_nano for draft in drafts),
            text_array(draft.kind for draft in drafts),
            text_array(draft.reference for draft in drafts),
            text_array(draft.idempotency_key for draft in drafts),
            text_array(draft.tenant_id for draft in drafts),
        ),
    )


def accounts_find(cursor: psycopg.Cursor[Any], owners: Iterable[Owner]) -> dict[Owner, str]:
    """Account ids by (kind, owner id); owners without an account are absent."""
    wanted = list(owners)
    cursor.execute(_ACCOUNTS, ([kind for kind, _ in wanted], [owner_id for _, owner_id in wanted]))
    return {(kind, owner_id): account_id for kind, owner_id, account_id in cursor}


def foundation_account(cursor: psycopg.Cursor[Any]) -> str:
    """The id of the one account that levies go to. Raises LookupError before a charter was adopted."""
    found = cursor.execute("SELECT id FROM ledger_account WHERE kind = 'foundation' LIMIT 2").fetchall()
    if len(found) != 1:
        raise LookupError(f"the ledger has {len(found)} foundation accounts instead of one")
    return str(found[0][0])


def tenant_balances(cursor: psycopg.Cursor[Any], tenant_ids: Iterable[str]) -> dict[str, Balance]:
    """Balances by tenant id; tenants without an account are absent."""
    cursor.execute(_BALANCES, (list(tenant_ids),))
    return {tenant_id: Balance(balance_nano, version) for tenant_id, balance_nano, version in cursor}
