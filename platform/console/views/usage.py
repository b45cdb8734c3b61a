"""Usage over the last days: a chart and tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import date, timedelta

from django.http import HttpResponse
from django.views.decorators.http import require_safe

from billing.selectors import UsageTotal, usage_by
from console.access import member_page
from console.chart import Chart, Series, daily_chart
from console.formats import day_text, dollars_short, number
from console.frame import Visit
from console.names import partner_names
from core.clock import clock

PERIODS = (7, 30, 90)


@dataclass(frozen=True, slots=True)
class UsageRow:
    """A line of a table: what, and how much of it."""

    label: str
    total: UsageTotal


@require_safe
@member_page
def usage(visit: Visit) -> HttpResponse:
    """Tokens and money of the chosen period, by day, model and partner."""
    wanted = visit.request.GET.get("days", "")
    days = int(wanted) if wanted in {str(period) for period in PERIODS} else PERIODS[1]
    end = clock.now().date()
    start = end - timedelta(days=days - 1)
    by_day = usage_by(group="day", start=start, end=end)
    day_names = {total.key: day_text(date.fromisoformat(total.key)) for total in by_day}
    context = {
        "periods": PERIODS,
        "days": days,
        "start": start,
        "end": end,
        "total": _sum(by_day),
        "token_chart": _token_chart(by_day, start, days),
        "cost_chart": _cost_chart(by_day, start, days),
        "tables": (
            ("Model", _rows(usage_by(group="model", start=start, end=end), {})),
            ("Partner", _rows(usage_by(group="partner", start=start, end=end), partner_names())),
            ("Day", _rows(by_day[::-1], day_names)),
        ),
    }
    return visit.page("console/usage.html", context)


def _rows(totals: Sequence[UsageTotal], names: dict[str, str]) -> list[UsageRow]:
    return [UsageRow(label=names.get(total.key, total.key), total=total) for total in totals]


def _sum(totals: Sequence[UsageTotal]) -> UsageTotal:
    counted = [field.name for field in fields(UsageTotal) if field.name != "key"]
    return UsageTotal(
        key="total", **{name: sum(getattr(total, name) for total in totals) for name in counted}
    )


def _token_chart(totals: Sequence[UsageTotal], start: date, days: int) -> Chart:
    values = {
        date.fromisoformat(total.key): (
            total.prompt_tokens - total.cached_tokens,
            total.cached_tokens,
            total.completion_tokens,
        )
        for total in totals
    }
    return daily_chart(
        key="tokens",
        title="Tokens a day",
        series=(Series("Input", 1), Series("Cached input", 2), Series("Output", 3)),
        days=_days(start, days),
        values=values,
        text=number,
    )


def _cost_chart(totals: Sequence[UsageTotal], start: date, days: int) -> Chart:
    values = {date.fromisoformat(total.key): (total.share_nano, total.levy_nano) for total in totals}
    return daily_chart(
        key="cost",
        title="Charge a day",
        series=(Series("Partners’ share", 1), Series("Foundation’s levy", 3)),
        days=_days(start, days),
        values=values,
        text=dollars_short,
    )


def _days(start: date, count: int) -> list[date]:
    return [start + timedelta(days=offset) for offset in range(count)]
