"""Filters: ``{% load console %}``."""

from __future__ import annotations

from datetime import UTC, date, datetime

from django import template
from django.utils.html import format_html
from django.utils.safestring import SafeString

from console import formats
from core.money import format_dollars

register = template.Library()

register.filter("dollars", format_dollars)
register.filter("dollars_aligned", formats.dollars_aligned)
register.filter("dollars_short", formats.dollars_short)
register.filter("number", formats.number)
register.filter("percent", formats.percent)
register.filter("percent_short", formats.percent_short)


@register.filter
def day(value: date) -> SafeString:
    """A day as text a machine can read too."""
    return format_html('<time datetime="{}">{}</time>', value.isoformat(), formats.day_text(value))


@register.filter
def when(value: datetime) -> SafeString:
    """A time in UTC, to the minute."""
    return _time(value, formats.time_text(value))


@register.filter
def when_seconds(value: datetime) -> SafeString:
    """A time in UTC, to the second."""
    return _time(value, formats.time_text(value, seconds=True))


@register.filter
def when_in_month(value: datetime) -> SafeString:
    """A time in UTC, to the second, where the page names the year."""
    return _time(value, formats.time_text(value, seconds=True, year=False))


def _time(value: datetime, text: str) -> SafeString:
    return format_html('<time datetime="{}">{}</time>', value.astimezone(UTC).isoformat(), text)
