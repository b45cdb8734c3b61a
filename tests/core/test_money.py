"""Money is exact or refused."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.money import ceil_div, dollars_to_nano, format_dollars

exact = settings(max_examples=100, derandomize=True, deadline=None)


@exact
@given(st.integers(-(10**18), 10**18))
def test_text_and_back(amount_nano: int) -> None:
    shown = format_dollars(amount_nano)
    assert dollars_to_nano(shown.replace("$", "").replace(",", "")) == amount_nano
    assert len(shown.partition(".")[2]) >= 2


@pytest.mark.parametrize(
    ("amount", "nano"),
    [("0.10", 100_000_000), (5, 5_000_000_000), (Decimal("-0.000000001"), -1), ("1e3", 10**12)],
)
def test_known_amounts(amount: Any, nano: int) -> None:
    assert dollars_to_nano(amount) == nano


@pytest.mark.parametrize("amount", ["0.0000000001", "NaN", "Infinity", "", "ten", "1,000", 0.1])
def test_inexact_amounts_are_refused(amount: Any) -> None:
    with pytest.raises(ValueError, match="dollars"):
        dollars_to_nano(amount)


@pytest.mark.parametrize(
    "amount", ["1e11", "-1e11", "1e5000", "1e999999", "9e999999", "9223372036.854775808"]
)
def test_amounts_beyond_64_bits_are_refused_without_being_computed(amount: Any) -> None:
    with pytest.raises(ValueError, match="dollars"):
        dollars_to_nano(amount)


@pytest.mark.parametrize(
    ("nano", "shown"),
    [
        (0, "$0.00"),
        (1_250_000_000, "$1.25"),
        (-4800, "-$0.0000048"),
        (1_234_567_000_000_000, "$1,234,567.00"),
    ],
)
def test_known_texts(nano: int, shown: str) -> None:
    assert format_dollars(nano) == shown


@exact
@given(st.integers(-(10**24), 10**24), st.integers(1, 10**12))
def test_division_rounds_up(numerator: int, denominator: int) -> None:
    assert ceil_div(numerator, denominator) == math.ceil(Fraction(numerator, denominator))
