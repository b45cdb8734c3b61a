"""Balance and usage of the caller's tenant; top-ups by foundation admins."""

from __future__ import annotations

from dataclasses import asdict, fields
from datetime import date, timedelta
from typing import Annotated, Literal

from django.http import HttpRequest
from ninja import Header, Query, Router, Status

from api.auth import AUTH, actor_of
from api.publishing import balance_publish
from api.schemas.money import BalanceOut, TopupIn, TopupOut, UsageOut, UsageReport
from api.topups import topup
from billing.selectors import UsageTotal, usage_by
from core.clock import clock
from core.errors import ApiError
from core.money import dollars_to_nano, format_dollars
from ledger.selectors import tenant_balance

router = Router(tags=["money"], auth=AUTH)
DAYS_MAX = 400
_FIRST_DAY = date(2020, 1, 1)
FirstDay = Annotated[date | None, Query(alias="from", description="A day in UTC, YYYY-MM-DD.")]
LastDay = Annotated[date | None, Query(alias="to", description="A day in UTC, YYYY-MM-DD.")]
RequiredKey = Annotated[
    str, Header(alias="Idempotency-Key", min_length=1, max_length=100, description="Makes repeating safe.")
]


@router.get("/balance", response=BalanceOut, summary="Balance")
def balance_get(request: HttpRequest) -> BalanceOut:
    """What the ledger says is left; requests in flight are not in it yet."""
    actor = actor_of(request)
    with actor.scope():
        balance = tenant_balance(tenant_id=actor.tenant())
    return BalanceOut(
        tenant_id=actor.tenant(),
        balance_nano=balance.balance_nano,
        balance=format_dollars(balance.balance_nano),
        version=balance.version,
    )


@router.get("/usage", response=UsageReport, summary="Usage")
def usage_get(
    request: HttpRequest,
    group_by: Literal["day", "model", "partner"] = "day",
    start: FirstDay = None,
    end: LastDay = None,
) -> UsageReport:
    """Sums by day, model or partner; the last 30 days unless told otherwise."""
    last = end or clock.now().date()
    if last < _FIRST_DAY:
        raise ApiError(422, f"to must not be before {_FIRST_DAY}.", code="invalid_value", param="to")
    first = start or last - timedelta(days=29)
    if not timedelta(0) <= last - first <= timedelta(days=DAYS_MAX):
        raise ApiError(
            422,
            f"from must not be after to, nor {DAYS_MAX} days before it.",
            code="invalid_value",
            param="from",
        )
    with actor_of(request).scope():
        totals = usage_by(group=group_by, start=first, end=last)
    return UsageReport(
        group_by=group_by,
        start=first,
        end=last,
        data=[UsageOut(**asdict(total)) for total in totals],
        total=_sum(totals),
    )


@router.post("/tenants/{tenant_id}/topups", response={201: TopupOut}, summary="Top up a tenant")
def topups_create(
    request: HttpRequest, tenant_id: str, payload: TopupIn, idempotency_key: RequiredKey
) -> Status[TopupOut]:
    """Foundation admins only. The same key with the same content pays in once."""
    actor = actor_of(request)
    actor.require_foundation_admin()
    done = topup(
        tenant_id=tenant_id,
        amount_nano=dollars_to_nano(payload.amount),
        reference=payload.reference,
        idempotency_key=idempotency_key,
        actor=actor.id,
    )
    balance_publish(tenant_id)
    return Status(201, TopupOut(**asdict(done)))


def _sum(totals: tuple[UsageTotal, ...]) -> UsageOut:
    counted = [field.name for field in fields(UsageTotal) if field.name != "key"]
    sums = {name: sum(getattr(total, name) for total in totals) for name in counted}
    return UsageOut(key="total", **sums)
