"""The requests of one month, in the caller's scope."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from metering.models import UsageRecord


@dataclass(frozen=True, slots=True)
class LinePage:
    """Records, newest first; ``next_cursor`` continues with older ones and is None at the end."""

    records: tuple[UsageRecord, ...]
    next_cursor: str | None


def month_after(month: date) -> date:
    """The first day of the following month; ``month`` is a first day."""
    return (month + timedelta(days=31)).replace(day=1)


def month_lines(*, month: date, before: str | None = None, limit: int = 50) -> LinePage:
    """What finished in ``month`` (UTC), older than the request id ``before``."""
    rows = (
        UsageRecord.objects.filter(
            finished_at__gte=_midnight(month), finished_at__lt=_midnight(month_after(month))
        )
        .defer("receipt", "decision")
        .order_by("-request_id")
    )
    if before:
        rows = rows.filter(request_id__lt=before)
    found = tuple(rows[: limit + 1])
    shown = found[:limit]
    return LinePage(records=shown, next_cursor=shown[-1].request_id if len(found) > limit else None)


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time.min, tzinfo=UTC)
