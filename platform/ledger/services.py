"""Moving money. Transfers are posted once and never edited; a correction is another transfer.

All of this runs in a system scope: the role that serves tenants cannot post.
"""

from __future__ import annotations

from core.errors import ApiError
from ledger.models import Account, AccountKind, Transfer, TransferKind

FOUNDATION_OWNER_ID = "foundation"
EXTERNAL_OWNER_ID = "external"


def account_ensure(*, kind: AccountKind, owner_id: str) -> Account:
    """The account of this owner, opened empty when there is none."""
    tenant_id = owner_id if kind == AccountKind.TENANT else None
    account = Account.objects.filter(kind=kind, owner_id=owner_id).first()
    if account is None:
        fresh = Account(kind=kind, owner_id=owner_id, tenant_id=tenant_id)
        Account.objects.bulk_create([fresh], ignore_conflicts=True)
        account = Account.objects.get(kind=kind, owner_id=owner_id)
    return account


def transfer_post(
    *,
    debit: Account,
    credit: Account,
    amount_nano: int,
    kind: TransferKind,
    reference: str,
    idempotency_key: str,
    tenant_id: str | None = None,
) -> Transfer:
    """Move ``amount_nano`` > 0 from ``debit`` to ``credit``, once per ``idempotency_key``.

    The same key with the same content returns the transfer posted before. Raises ApiError 409 when the key
    was used for another content, ValueError for an amount that is not positive or a single account.
    """
    if amount_nano <= 0:
        raise ValueError("a transfer moves a positive amount")
    if debit.id == credit.id:
        raise ValueError("a transfer needs two accounts")
    wanted = Transfer(
        debit_account=debit,
        credit_account=credit,
        amount_nano=amount_nano,
        kind=kind,
        reference=reference,
        idempotency_key=idempotency_key,
        tenant_id=tenant_id,
    )
    Transfer.objects.bulk_create([wanted], ignore_conflicts=True)
    posted = Transfer.objects.get(idempotency_key=idempotency_key)
    if _content(posted) != _content(wanted):
        raise ApiError(
            409,
            "This idempotency key was used for another transfer. Use a fresh one for a new transfer.",
            code="idempotency_key_reused",
        )
    return posted


def _content(transfer: Transfer) -> tuple[object, ...]:
    return (
        transfer.debit_account_id,
        transfer.credit_account_id,
        transfer.amount_nano,
        transfer.kind,
        transfer.reference,
        transfer.tenant_id,
    )


def tenant_topup(*, tenant_id: str, amount_nano: int, idempotency_key: str, reference: str) -> Transfer:
    """Money from outside, paid in by a tenant."""
    return transfer_post(
        debit=account_ensure(kind=AccountKind.EXTERNAL, owner_id=EXTERNAL_OWNER_ID),
        credit=account_ensure(kind=AccountKind.TENANT, owner_id=tenant_id),
        amount_nano=amount_nano,
        kind=TransferKind.TOPUP,
        reference=reference,
        idempotency_key=f"topup:{tenant_id}:{idempotency_key}",
        tenant_id=tenant_id,
    )


def tenant_grant(*, tenant_id: str, amount_nano: int, idempotency_key: str, reference: str) -> Transfer:
    """Money the foundation gives to a tenant."""
    return transfer_post(
        debit=account_ensure(kind=AccountKind.FOUNDATION, owner_id=FOUNDATION_OWNER_ID),
        credit=account_ensure(kind=AccountKind.TENANT, owner_id=tenant_id),
        amount_nano=amount_nano,
        kind=TransferKind.GRANT,
        reference=reference,
        idempotency_key=f"grant:{tenant_id}:{idempotency_key}",
        tenant_id=tenant_id,
    )
