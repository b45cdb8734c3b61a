"""The bill, read from usage records: one line a request, and totals by day, model or partner.

Everything here reads through the alias ``default`` inside a tenant's scope, so row-level security decides
whose lines there are: outside a scope there are none. Amounts are nano-dollars; days and months are UTC.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import UTC, date, datetime, time
from typing import Any, Literal

from django.apps import apps
from django.db.models import Count, F, QuerySet, Sum
from django.db.models.functions import TruncDate

Group = Literal["day", "model", "partner"]


@dataclass(frozen=True, slots=True)
class BillLine:
    """What one request cost and why. ``charge_nano == share_nano + levy_nano``."""

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


@dataclass(frozen=True, slots=True)
class BillPage:
    """Lines, newest first; ``next_cursor`` continues with older ones and is None at the end."""

    lines: tuple[BillLine, ...]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class UsageTotal:
    """Sums over some requests. ``key`` says which: a day (YYYY-MM-DD), a model, a partner id, a month."""

    key: str
    requests: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    share_nano: int
    levy_nano: int
    charge_nano: int

    @property
    def total_tokens(self) -> int:
        """Prompt and completion together."""
        return self.prompt_tokens + self.completion_tokens


_LINE_FIELDS = tuple(field.name for field in fields(BillLine))
_SUM_FIELDS = tuple(field.name for field in fields(UsageTotal) if field.name not in ("key", "requests"))
_GROUP_KEYS: dict[Group, Any] = {
    "day": TruncDate("finished_at", tzinfo=UTC),
    "model": F("model"),
    "partner": F("partner_id"),
}


def bill_line(request_id: str) -> BillLine | None:
    """The line of one request; None when this tenant has no such request (or it is not posted yet)."""
    row = _records().filter(request_id=request_id).values(*_LINE_FIELDS).first()
    return BillLine(**row) if row else None


def bill_lines(*, cursor: str | None = None, limit: int = 50) -> BillPage:
    """A page of at most ``limit`` lines older than ``cursor`` (a request id), newest request first."""
    if limit < 1:
        raise ValueError("limit must be at least 1")
    records = _records().order_by("-request_id")
    if cursor is not None:
        records = records.filter(request_id__lt=cursor)
    rows = list(records.values(*_LINE_FIELDS)[: limit + 1])
    lines = tuple(BillLine(**row) for row in rows[:limit])
    return BillPage(lines=lines, next_cursor=lines[-1].request_id if len(rows) > limit else None)


def usage_by(*, group: Group, start: date, end: date) -> tuple[UsageTotal, ...]:
    """Totals of the days ``start`` to ``end`` (both included) in order of their key."""
    rows = (
        _between(start, end)
        .annotate(key=_GROUP_KEYS[group])
        .values("key")
        .annotate(requests=Count("request_id"), **{f"sum_{name}": Sum(name) for name in _SUM_FIELDS})
        .order_by("key")
    )
    return tuple(_total(str(row["key"]), row) for row in rows)


def bill_total(*, month: date) -> UsageTotal:
    """Totals of the calendar month ``month`` lies in; zeros when nothing was used."""
    first = month.replace(day=1)
    following = date(first.year + first.month // 12, first.month % 12 + 1, 1)
    row = (
        _records()
        .filter(finished_at__gte=_midnight(first), finished_at__lt=_midnight(following))
        .aggregate(requests=Count("request_id"), **{f"sum_{name}": Sum(name) for name in _SUM_FIELDS})
    )
    return _total(f"{first:%Y-%m}", row)


def _records() -> QuerySet[Any]:
    # By name: metering stands above billing (it rates with it), so billing cannot import its models.
    records: QuerySet[Any] = apps.get_model("metering", "UsageRecord")._default_manager.using("default")
    return records


def _between(start: date, end: date) -> QuerySet[Any]:
    after_end = datetime.combine(end, time.max, tzinfo=UTC)
    return _records().filter(finished_at__gte=_midnight(start), finished_at__lte=after_end)


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time.min, tzinfo=UTC)


def _total(key: str, row: dict[str, Any]) -> UsageTotal:
    sums = {name: int(row[f"sum_{name}"] or 0) for name in _SUM_FIELDS}
    return UsageTotal(key=key, requests=row["requests"], **sums)
