"""The bill: a tenant reads its own lines and sums, and nothing else."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from billing.selectors import bill_line, bill_lines, bill_total, usage_by
from core.ids import new_id
from metering.models import UsageRecord
from tenants.scope import system_scope, tenant_scope

pytestmark = pytest.mark.django_db(databases=["default", "system"], transaction=True)
NOON = datetime(2026, 3, 31, 12, tzinfo=UTC)


def record(tenant_id: str, finished_at: datetime, **changes: Any) -> UsageRecord:
    """A posted request of the tenant: 100 + 10 tokens, 11,000 nano-dollars and 550 levy."""
    fields: dict[str, Any] = {
        "request_id": new_id("req"),
        "tenant_id": tenant_id,
        "project_id": "prj_x",
        "api_key_id": "key_x",
        "partner_id": "par_a",
        "pool_id": "pol_x",
        "worker_id": "wrk_x",
        "release_id": "rel_x",
        "offer_id": "off_x",
        "model": "nano",
        "endpoint": "/v1/completions",
        "prompt_tokens": 100,
        "cached_tokens": 40,
        "completion_tokens": 10,
        "finish_reason": "stop",
        "input_nano_per_mtok": 100_000_000,
        "cached_input_nano_per_mtok": 100_000_000,
        "output_nano_per_mtok": 100_000_000,
        "levy_ppm": 50_000,
        "share_nano": 11_000,
        "levy_nano": 550,
        "charge_nano": 11_550,
        "witness": "both",
        "received_at": finished_at - timedelta(seconds=1),
        "finished_at": finished_at,
        "receipt": {},
        "decision": {},
        **changes,
    }
    return UsageRecord.objects.create(**fields)


@pytest.fixture
def tenants() -> tuple[str, str]:
    """Two tenants: the first with six requests around the end of March, the second with one."""
    mine, other = new_id("ten"), new_id("ten")
    with system_scope():
        for hours in (0, 1, 11, 12, 36):
            record(mine, NOON + timedelta(hours=hours), model="nano" if hours < 12 else "mini")
        record(mine, NOON, partner_id="par_b")
        record(other, NOON)
    return mine, other


def test_lines_page_through_newest_first(tenants: tuple[str, str]) -> None:
    with tenant_scope(tenants[0]):
        pages, cursor = [], None
        while True:
            page = bill_lines(cursor=cursor, limit=4)
            pages.append([line.request_id for line in page.lines])
            cursor = page.next_cursor
            if cursor is None:
                break
        assert [len(page) for page in pages] == [4, 2]
        everything = [request_id for page in pages for request_id in page]
        assert everything == sorted(everything, reverse=True)
        assert len(set(everything)) == 6
        line = bill_line(everything[0])
        assert line is not None
        assert line.charge_nano == line.share_nano + line.levy_nano == 11_550
        assert bill_lines(limit=6).next_cursor is None
        with pytest.raises(ValueError, match="limit"):
            bill_lines(limit=0)


def test_totals_by_day_model_and_partner(tenants: tuple[str, str]) -> None:
    first, last = date(2026, 3, 31), date(2026, 4, 2)
    with tenant_scope(tenants[0]):
        days = usage_by(group="day", start=first, end=last)
        assert [(day.key, day.requests) for day in days] == [
            ("2026-03-31", 4),
            ("2026-04-01", 1),
            ("2026-04-02", 1),
        ]
        assert (days[0].prompt_tokens, days[0].cached_tokens, days[0].total_tokens) == (400, 160, 440)
        assert days[0].charge_nano == days[0].share_nano + days[0].levy_nano == 4 * 11_550
        models = usage_by(group="model", start=first, end=last)
        assert {total.key: total.requests for total in models} == {"mini": 2, "nano": 4}
        partners = usage_by(group="partner", start=first, end=last)
        assert {total.key: total.requests for total in partners} == {"par_a": 5, "par_b": 1}
        assert usage_by(group="day", start=last, end=last)[0].requests == 1


def test_month_counts_its_own_days(tenants: tuple[str, str]) -> None:
    with tenant_scope(tenants[0]):
        march, april = bill_total(month=date(2026, 3, 1)), bill_total(month=date(2026, 4, 30))
        assert (march.key, march.requests, march.charge_nano) == ("2026-03", 4, 4 * 11_550)
        assert (april.key, april.requests) == ("2026-04", 2)
        empty = bill_total(month=date(2025, 12, 31))
        assert (empty.key, empty.requests, empty.charge_nano) == ("2025-12", 0, 0)


def test_another_tenants_lines_do_not_exist(tenants: tuple[str, str]) -> None:
    mine, other = tenants
    with tenant_scope(other):
        [theirs] = bill_lines().lines
    with tenant_scope(mine):
        assert bill_line(theirs.request_id) is None
        assert theirs.request_id not in {line.request_id for line in bill_lines().lines}
    with tenant_scope(new_id("ten")):
        assert bill_lines().lines == ()
        assert bill_total(month=date(2026, 3, 1)).requests == 0
    assert bill_lines().lines == ()  # no scope, no rows
