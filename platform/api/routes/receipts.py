"""The bill's lines, and the receipt behind each."""

from __future__ import annotations

from dataclasses import asdict

from django.http import HttpRequest
from ninja import Router

from api.auth import AUTH, actor_of
from api.paging import Cursor, Limit
from api.receipts import receipt_check
from api.schemas.money import BillLineOut, ReceiptOut, ReceiptPage
from billing.selectors import bill_line, bill_lines
from core.errors import not_found
from metering.models import UsageRecord

router = Router(tags=["receipts"], auth=AUTH)


@router.get("/receipts", response=ReceiptPage, summary="List the bill's lines")
def receipts_list(request: HttpRequest, limit: Limit = 50, cursor: Cursor = None) -> ReceiptPage:
    """Newest request first."""
    with actor_of(request).scope():
        page = bill_lines(cursor=cursor, limit=limit)
    return ReceiptPage(
        data=[BillLineOut(**asdict(line)) for line in page.lines], next_cursor=page.next_cursor
    )


@router.get("/receipts/{request_id}", response=ReceiptOut, summary="Get and check a receipt")
def receipts_get(request: HttpRequest, request_id: str) -> ReceiptOut:
    """Both signatures, the routing decision, and what checking them again finds."""
    actor = actor_of(request)
    with actor.scope():
        record = UsageRecord.objects.filter(request_id=request_id, tenant_id=actor.tenant()).first()
        line = bill_line(request_id)
        if record is None or line is None:
            raise not_found(f"There is no receipt for request {request_id!r}, or it is not posted yet.")
        return ReceiptOut(
            receipt=record.receipt,
            decision=record.decision,
            verified=receipt_check(record),
            bill_line=BillLineOut(**asdict(line)),
        )
