"""How numbers, money and times read on a page. Pure."""

from __future__ import annotations

from datetime import UTC, date, datetime

from core.money import NANO_PER_DOLLAR, PPM, format_dollars

_SIGNIFICANT_DIGITS = 3
_NANO_DIGITS = 9


def dollars_short(amount_nano: int) -> str:
    """The amount cut (never rounded up) to cents, or below a dollar to three significant digits.

    For headlines, beside the exact ``format_dollars``: ``$4.99``, ``$0.000123``.
    """
    size = abs(amount_nano)
    if size >= NANO_PER_DOLLAR:
        unit = NANO_PER_DOLLAR // 100
    else:
        unit = 10 ** max(0, min(len(str(size)) - _SIGNIFICANT_DIGITS, _NANO_DIGITS - 2))
    cut = size // unit * unit
    return format_dollars(-cut if amount_nano < 0 else cut)


def dollars_aligned(amount_nano: int) -> str:
    """The exact amount with all nine decimals, so that a column of them lines up."""
    sign = "-" if amount_nano < 0 else ""
    whole, nano = divmod(abs(amount_nano), NANO_PER_DOLLAR)
    return f"{sign}${whole:,}.{nano:0{_NANO_DIGITS}d}"


def number(count: int) -> str:
    """A whole number with thousands separated."""
    return f"{count:,}"


def percent(ppm: int) -> str:
    """Parts per million as per cent, without trailing zeros."""
    whole, rest = divmod(ppm * 100, PPM)
    fraction = f"{rest:06d}".rstrip("0")
    return f"{whole}.{fraction}%" if fraction else f"{whole}%"


def day_text(day: date) -> str:
    """``24 Nov 2026``."""
    return f"{day.day} {day:%b %Y}"


def time_text(at: datetime, *, seconds: bool = False, year: bool = True) -> str:
    """``24 Nov 2026, 06:14`` in UTC."""
    utc = at.astimezone(UTC)
    day = day_text(utc) if year else f"{utc.day} {utc:%b}"
    return f"{day}, {utc:%H:%M:%S}" if seconds else f"{day}, {utc:%H:%M}"


def percent_short(ppm: int) -> str:
    """Parts per million as per cent with one decimal, cut: ``62.5%``."""
    return f"{ppm // 10_000}.{ppm // 1_000 % 10}%"
