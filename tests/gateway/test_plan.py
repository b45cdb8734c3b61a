"""What is held is enough for the worst that can be charged."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

from hypothesis import given, settings
from hypothesis import strategies as st

from billing.rating import Price, charge_for
from gateway.plan import worst_case_nano
from routing.records import Decision
from transparency.receipts import Bounds

RATE = st.integers(0, 10**10)
TOKENS = st.integers(0, 5000)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(rates=st.tuples(RATE, RATE, RATE), bounds=st.tuples(TOKENS, TOKENS), data=st.data())
def test_no_counts_within_the_bounds_cost_more_than_the_hold(
    rates: tuple[int, int, int], bounds: tuple[int, int], data: st.DataObject
) -> None:
    price = Price(
        offer_id="off_1",
        input_nano_per_mtok=rates[0],
        cached_input_nano_per_mtok=rates[1],
        output_nano_per_mtok=rates[2],
        levy_ppm=50_000,
    )
    decision = cast("Decision", SimpleNamespace(eligible=(SimpleNamespace(price=price),)))
    prompt = data.draw(st.integers(0, bounds[0]))
    charge = charge_for(
        price=price,
        prompt_tokens=prompt,
        cached_tokens=data.draw(st.integers(0, prompt)),
        completion_tokens=data.draw(st.integers(0, bounds[1])),
    )
    held = worst_case_nano(decision, Bounds(prompt_tokens_max=bounds[0], completion_tokens_max=bounds[1]))
    assert charge.charge_nano <= held
