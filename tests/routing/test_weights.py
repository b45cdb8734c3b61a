"""The draw's integer arithmetic."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from core.secrets import derive_token
from routing.seeds import day_key, request_seed
from routing.weights import draw_index, draw_weight

PROFILE = settings(max_examples=80, deadline=None, derandomize=True)


@PROFILE
@given(st.integers(0, 10**8), st.integers(0, 10**8), st.integers(1, 10**7))
def test_weight_never_grows_with_cost(left: int, right: int, half: int) -> None:
    low, high = sorted((left, right))
    assert draw_weight(low, half) >= draw_weight(high, half)


@PROFILE
@given(st.integers(0, 20), st.integers(1, 10**7))
def test_weight_halves(halvings: int, half: int) -> None:
    assert draw_weight(halvings * half, half) == 2 ** (32 - halvings)


def test_between_halvings_it_follows_the_curve() -> None:
    for step in range(1, 100):
        exact = 2**32 * 2 ** (-step / 100)
        assert abs(draw_weight(step * 1000, 100_000) - exact) / exact < 0.003


@PROFILE
@given(st.lists(st.integers(0, 100), min_size=1, max_size=6).filter(any), st.integers(0, 2**128))
def test_only_weighted_ones_are_drawn(weights: list[int], number: int) -> None:
    assert weights[draw_index(weights, number)] > 0


def test_each_day_and_request_has_its_seed() -> None:
    day = 86_400_000
    assert day_key("s", 0) == day_key("s", day - 1)
    assert day_key("s", 0) != day_key("s", day)
    assert day_key("s", 0).hex() == derive_token("s", "routing-day", "1970-01-01")
    assert request_seed(b"k", "req_1") != request_seed(b"k", "req_2")
