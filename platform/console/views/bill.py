"""The bill of a month, line by line, and each line's receipt."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from django.http import HttpResponse, JsonResponse
from django.views.decorators.http import require_safe

from billing.selectors import bill_total
from console.access import member_page
from console.frame import Visit
from console.lines import month_after, month_lines
from console.names import partner_names
from console.receipts import decision_view, receipt_problems, receipt_seals, usage_record_get
from core.clock import clock
from metering.models import UsageRecord

_LINES_PER_PAGE = 50
_FIRST_MONTH = date(2020, 1, 1)


@dataclass(frozen=True, slots=True)
class NamedLine:
    """A line of the bill with its partner's name."""

    line: UsageRecord
    partner_name: str


@require_safe
@member_page
def bill(visit: Visit) -> HttpResponse:
    """Totals of the month and its requests, newest first."""
    today = clock.now().date()
    month = _month(visit.request.GET.get("month", ""), today)
    names = partner_names()
    page = month_lines(month=month, before=visit.request.GET.get("before"), limit=_LINES_PER_PAGE)
    context = {
        "month": month,
        "month_before": (month - timedelta(days=1)).replace(day=1),
        "month_after": month_after(month) if month < today.replace(day=1) else None,
        "total": bill_total(month=month),
        "lines": [
            NamedLine(line=line, partner_name=names.get(line.partner_id, line.partner_id))
            for line in page.records
        ],
        "next_cursor": page.next_cursor,
    }
    return visit.page("console/bill.html", context)


@require_safe
@member_page
def receipt(visit: Visit, request_id: str) -> HttpResponse:
    """What was checked, served and charged for one request."""
    record = usage_record_get(request_id)
    problems = receipt_problems(record)
    names = partner_names()
    context = {
        "line": record,
        "partner_name": names.get(record.partner_id, record.partner_id),
        "uncached_tokens": record.prompt_tokens - record.cached_tokens,
        "first_token_ms": _ms(record.received_at, record.first_token_at),
        "total_ms": _ms(record.received_at, record.finished_at),
        "seals": receipt_seals(record, problems),
        "problems": problems,
        "decision": decision_view(record, names),
        "receipt_json": json.dumps(record.receipt, indent=2, sort_keys=True),
        "decision_json": json.dumps(record.decision, indent=2, sort_keys=True),
    }
    return visit.page("console/receipt.html", context)


@require_safe
@member_page
def receipt_json(visit: Visit, request_id: str) -> HttpResponse:
    """Receipt and decision as a file, for checking elsewhere."""
    record = usage_record_get(request_id)
    response = JsonResponse({"receipt": record.receipt, "decision": record.decision})
    response["Content-Disposition"] = f'attachment; filename="{request_id}.json"'
    response["Cache-Control"] = "no-store"
    return response


def _month(text: str, today: date) -> date:
    """The first day of the month in ``text`` (YYYY-MM); this month when it is malformed or out of range."""
    try:
        month = datetime.strptime(text, "%Y-%m").replace(tzinfo=UTC).date()
    except ValueError:
        return today.replace(day=1)
    return month if _FIRST_MONTH <= month <= today else today.replace(day=1)


def _ms(start: datetime, end: datetime | None) -> int | None:
    return None if end is None else round((end - start) / timedelta(milliseconds=1))
