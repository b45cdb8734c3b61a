"""Checking a receipt again, against its signatures, the enrolled worker, the bill and the ledger."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from api.schemas.money import Verdict
from billing.rating import Charge, Price, charge_for
from ledger.models import Transfer, TransferKind
from metering.models import UsageRecord
from partners.models import Worker
from tenants.scope import system_scope
from transparency.receipts import Receipt, receipt_parse, verify


def receipt_check(record: UsageRecord) -> Verdict:
    """What is wrong with the record's receipt, if anything. Runs in the tenant's scope."""
    try:
        receipt = receipt_parse(record.receipt)
    except msgspec.ValidationError:
        return Verdict(
            sound=False,
            problems=["receipt_unreadable"],
            worker_is_enrolled=False,
            counts_match_the_bill=False,
            charge_follows_from_prices=_charge_follows(record),
            transfers_match_the_bill=_transfers_match(record),
        )
    checks = {
        "worker_is_enrolled": _worker_is_enrolled(record, receipt),
        "counts_match_the_bill": _counts_match(record, record.receipt),
        "charge_follows_from_prices": _charge_follows(record),
        "transfers_match_the_bill": _transfers_match(record),
    }
    problems = [*verify(receipt), *(f"not_{name}" for name, holds in checks.items() if not holds)]
    return Verdict(sound=not problems, problems=problems, **checks)


def _worker_is_enrolled(record: UsageRecord, receipt: Receipt) -> bool:
    with system_scope():
        worker = Worker.objects.filter(id=record.worker_id).values("public_key", "pool_id").first()
    return (
        worker is not None
        and worker["public_key"] == receipt.worker_public_key
        and worker["pool_id"] == record.pool_id
    )


def _counts_match(record: UsageRecord, receipt: Mapping[str, Any]) -> bool:
    """The counts billed are the signed ones: the gateway's, where it settled, else the worker's."""
    signed = receipt.get("gateway") or receipt["entry"]
    names = ("request_id", "prompt_tokens", "cached_tokens", "completion_tokens")
    return all(signed[name] == getattr(record, name) for name in names)


def _charge_follows(record: UsageRecord) -> bool:
    price = Price(
        offer_id=record.offer_id,
        input_nano_per_mtok=record.input_nano_per_mtok,
        cached_input_nano_per_mtok=record.cached_input_nano_per_mtok,
        output_nano_per_mtok=record.output_nano_per_mtok,
        levy_ppm=record.levy_ppm,
    )
    rated = charge_for(
        price=price,
        prompt_tokens=record.prompt_tokens,
        cached_tokens=record.cached_tokens,
        completion_tokens=record.completion_tokens,
    )
    billed = Charge(share_nano=record.share_nano, levy_nano=record.levy_nano, charge_nano=record.charge_nano)
    return rated == billed


def _transfers_match(record: UsageRecord) -> bool:
    """The ledger moved exactly the share and the levy for this request (an amount of 0 moves nothing)."""
    due = {TransferKind.USAGE_SHARE: record.share_nano, TransferKind.USAGE_LEVY: record.levy_nano}
    keys = [f"usage:{record.request_id}:{leg}" for leg in ("share", "levy")]  # as the meter posts them
    rows = Transfer.objects.filter(idempotency_key__in=keys, tenant_id=record.tenant_id)
    moved = {TransferKind(row.kind): row.amount_nano for row in rows}
    return moved == {kind: amount for kind, amount in due.items() if amount}
