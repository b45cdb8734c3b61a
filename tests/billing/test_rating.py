"""Charges are exact: share + levy, never below the exact value, less than a nano-dollar above it each."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billing.rating import Charge, Price, charge_for

RATES = st.integers(0, 20_000_000_000)
TOKENS = st.integers(0, 2_000_000)
exact = settings(max_examples=150, derandomize=True, deadline=None)


@st.composite
def prices(draw: st.DrawFn) -> Price:
    return Price(
        offer_id="off_x",
        input_nano_per_mtok=draw(RATES),
        cached_input_nano_per_mtok=draw(RATES),
        output_nano_per_mtok=draw(RATES),
        levy_ppm=draw(st.integers(0, 1_000_000)),
    )


def rate(price: Price, fresh: int, cached: int, completion: int) -> Charge:
    """The charge for ``fresh`` uncached and ``cached`` prompt tokens."""
    return charge_for(
        price=price, prompt_tokens=fresh + cached, cached_tokens=cached, completion_tokens=completion
    )


@exact
@given(prices(), TOKENS, TOKENS, TOKENS)
def test_charge_is_share_and_levy_rounded_up_by_less_than_one_each(
    price: Price, fresh: int, cached: int, completion: int
) -> None:
    charge = rate(price, fresh, cached, completion)
    true_share = (
        Fraction(fresh * price.input_nano_per_mtok, 10**6)
        + Fraction(cached * price.cached_input_nano_per_mtok, 10**6)
        + Fraction(completion * price.output_nano_per_mtok, 10**6)
    )
    assert charge.charge_nano == charge.share_nano + charge.levy_nano
    assert 0 <= charge.share_nano - true_share < 1
    assert 0 <= charge.levy_nano - Fraction(charge.share_nano * price.levy_ppm, 10**6) < 1
    assert charge.charge_nano >= true_share * (1 + Fraction(price.levy_ppm, 10**6))


@exact
@given(prices(), st.lists(TOKENS, min_size=3, max_size=3), st.integers(0, 2), st.integers(0, 1000))
def test_more_tokens_never_cost_less(price: Price, counts: list[int], which: int, more: int) -> None:
    before = rate(price, *counts)
    counts[which] += more
    after = rate(price, *counts)
    assert after.share_nano >= before.share_nano
    assert after.levy_nano >= before.levy_nano


@exact
@given(prices(), st.lists(st.tuples(TOKENS, TOKENS, TOKENS), min_size=1, max_size=6))
def test_splitting_a_request_never_makes_it_cheaper(price: Price, parts: list[tuple[int, int, int]]) -> None:
    fresh, cached, completion = (sum(part[index] for part in parts) for index in range(3))
    split = sum(rate(price, *part).charge_nano for part in parts)
    assert 0 <= split - rate(price, fresh, cached, completion).charge_nano <= 2 * len(parts)


def test_reference_prices() -> None:
    """A million tokens at $0.10 cost $0.10 and 5% levy."""
    price = Price(
        offer_id="off_x",
        input_nano_per_mtok=100_000_000,
        cached_input_nano_per_mtok=100_000_000,
        output_nano_per_mtok=100_000_000,
        levy_ppm=50_000,
    )
    assert rate(price, 999_999, 0, 1) == Charge(
        share_nano=100_000_000, levy_nano=5_000_000, charge_nano=105_000_000
    )
    assert rate(price, 0, 0, 0) == Charge(share_nano=0, levy_nano=0, charge_nano=0)
    assert rate(price, 0, 0, 1) == Charge(share_nano=100, levy_nano=5, charge_nano=105)


@pytest.mark.parametrize(("prompt", "cached", "completion"), [(1, 2, 0), (0, -1, 0), (-1, 0, 0), (5, 5, -1)])
def test_impossible_counts_are_refused(prompt: int, cached: int, completion: int) -> None:
    price = Price(
        offer_id="off_x",
        input_nano_per_mtok=1,
        cached_input_nano_per_mtok=1,
        output_nano_per_mtok=1,
        levy_ppm=0,
    )
    with pytest.raises(ValueError, match="token counts"):
        charge_for(price=price, prompt_tokens=prompt, cached_tokens=cached, completion_tokens=completion)
