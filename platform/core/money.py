"""Money is an integer count of nano-dollars (1e-9 USD). Rounding happens in ``ceil_div`` and nowhere else."""

from __future__ import annotations

from decimal import Decimal

NANO_PER_DOLLAR = 1_000_000_000
TOKENS_PER_MTOK = 1_000_000
PPM = 1_000_000
_LIMIT = 1 << 63  # what the ledger's columns hold


def dollars_to_nano(amount: str | int | Decimal) -> int:
    """Exact conversion of a decimal dollar amount.

    Raises ValueError for anything finer than a nano-dollar, beyond 64 bits or not a finite number; floats
    are refused.
    """
    if isinstance(amount, float):
        raise ValueError("pass dollars as text, int or Decimal: binary floats are not exact")
    try:
        nano = Decimal(amount) * NANO_PER_DOLLAR
    except ArithmeticError as error:
        raise ValueError(f"not an amount in dollars: {amount!r}") from error
    # before int(): an exponent of a few characters may spell a number that takes minutes to write out
    if nano.is_finite() and not -_LIMIT < nano < _LIMIT:
        raise ValueError(f"more dollars than 64 bits of nano-dollars hold: {amount!r}")
    if not nano.is_finite() or nano != nano.to_integral_value():
        raise ValueError(f"not a whole number of nano-dollars: {amount!r}")
    return int(nano)


def format_dollars(amount_nano: int) -> str:
    """Exact text such as ``$1.25`` or ``-$0.0000048``: at least two decimals, no trailing zeros beyond."""
    sign = "-" if amount_nano < 0 else ""
    whole, nano = divmod(abs(amount_nano), NANO_PER_DOLLAR)
    fraction = f"{nano:09d}".rstrip("0").ljust(2, "0")
    return f"{sign}${whole:,}.{fraction}"


def ceil_div(numerator: int, denominator: int) -> int:
    """Integer division rounded up; ``denominator`` > 0."""
    return -(-numerator // denominator)
