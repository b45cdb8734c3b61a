"""Balances, usage, bills and receipts over the wire."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Any, Literal

from pydantic import StringConstraints

from api.schemas.base import In, Out


class BalanceOut(Out):
    """What the tenant has left."""

    tenant_id: str
    currency: Literal["USD"] = "USD"
    balance_nano: int
    balance: str
    version: int


class TopupIn(In):
    """Money paid in, in dollars as exact decimal text."""

    amount: Annotated[str, StringConstraints(pattern=r"^\d{1,9}(\.\d{1,9})?$")]
    reference: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=150)]


class TopupOut(Out):
    """The transfer, and the balance after it."""

    id: str
    tenant_id: str
    amount_nano: int
    reference: str
    posted_at: datetime
    balance_nano: int


class UsageOut(Out):
    """Sums over the requests of one group. ``charge_nano`` = ``share_nano`` + ``levy_nano``."""

    key: str
    requests: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    share_nano: int
    levy_nano: int
    charge_nano: int


class UsageReport(Out):
    """Usage of the days ``start`` to ``end`` (UTC, both included)."""

    group_by: Literal["day", "model", "partner"]
    start: date
    end: date
    data: list[UsageOut]
    total: UsageOut


class BillLineOut(Out):
    """What one request cost and why."""

    request_id: str
    project_id: str
    api_key_id: str
    partner_id: str
    worker_id: str
    model: str
    endpoint: str
    finish_reason: str
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    input_nano_per_mtok: int
    cached_input_nano_per_mtok: int
    output_nano_per_mtok: int
    levy_ppm: int
    share_nano: int
    levy_nano: int
    charge_nano: int
    witness: str
    received_at: datetime
    finished_at: datetime


class ReceiptPage(Out):
    """Bill lines, newest first; each has a receipt under its ``request_id``."""

    data: list[BillLineOut]
    next_cursor: str | None


class Verdict(Out):
    """What checking the receipt again found. ``sound`` means no problems."""

    sound: bool
    problems: list[str]
    worker_is_enrolled: bool
    counts_match_the_bill: bool
    charge_follows_from_prices: bool
    transfers_match_the_bill: bool


class ReceiptOut(Out):
    """A receipt with both signatures, the routing decision, the check, and the line of the bill."""

    receipt: dict[str, Any]
    decision: dict[str, Any]
    verified: Verdict
    bill_line: BillLineOut
