from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.engine.sampler import choose_tokens, uniform
from inference.engine.step import Draw


def draws(count: int, *, temperature: float = 1.0, top_p: float = 1.0, seed: int = 3) -> list[Draw]:
    return [Draw(temperature, top_p, seed, index) for index in range(count)]


def frequencies(logits: list[float], count: int = 4000, **params: float) -> dict[int, float]:
    tokens = choose_tokens(torch.tensor(logits).expand(count, -1), draws(count, **params))  # type: ignore[arg-type]
    return {token: n / count for token, n in Counter(tokens).items() if token is not None}


def test_temperature_zero_is_the_best_token() -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0], [5.0, 4.9, -1.0]])
    assert choose_tokens(logits, draws(2, temperature=0.0)) == [1, 0]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_frequencies_follow_the_tempered_distribution(temperature: float) -> None:
    logits = [0.0, 1.0, 2.0, -1.0]
    weights = [math.exp(x / temperature) for x in logits]
    found = frequencies(logits, temperature=temperature)
    for token, weight in enumerate(weights):
        assert found.get(token, 0) == pytest.approx(weight / sum(weights), abs=0.025)


def test_top_p_keeps_the_fewest_tokens_that_reach_it_and_their_proportions() -> None:
    logits = [math.log(p) for p in (0.15, 0.5, 0.05, 0.3)]
    assert set(frequencies(logits, top_p=0.5)) == {1}
    found = frequencies(logits, top_p=0.79)
    assert set(found) == {1, 3}
    assert found[1] == pytest.approx(0.5 / 0.8, abs=0.025)
    assert set(frequencies(logits, top_p=0.81)) == {0, 1, 3}
    assert set(frequencies(logits, top_p=1e-9)) == {1}


def test_a_nucleus_wider_than_the_first_try_is_found() -> None:
    """300 equal tokens: half of them make up 0.5, more than the 64 candidates looked at first."""
    found = frequencies([0.0] * 300 + [-50.0] * 10, top_p=0.5)
    assert 145 <= len(found) <= 151
    assert max(found) < 300


def test_extreme_temperatures_and_logits_stay_finite() -> None:
    logits = torch.tensor([[3e38, -3e38, 1.0], [1.0, 2.0, 3.0]])
    assert choose_tokens(logits, draws(2, temperature=1e-6)) == [0, 2]
    assert all(token is not None for token in choose_tokens(logits, draws(2, temperature=1e6)))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_rows_that_are_not_finite_have_no_token_and_harm_no_other(bad: float, temperature: float) -> None:
    logits = torch.randn(3, 50)
    expected = choose_tokens(logits, draws(3, temperature=temperature))
    logits[1, 7] = bad
    found = choose_tokens(logits, draws(3, temperature=temperature))
    assert found[1] is None
    assert [found[0], found[2]] == [expected[0], expected[2]]


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([0.0, 0.3, 1.0, 1.7]),
            st.sampled_from([0.1, 0.9, 1.0]),
            st.integers(-(2**70), 2**70),
            st.integers(0, 500),
        ),
        min_size=2,
        max_size=12,
    )
)
def test_a_row_is_drawn_alike_in_any_batch(rows: list[tuple[float, float, int, int]]) -> None:
    generator = torch.Generator().manual_seed(len(rows))
    logits = torch.randn(len(rows), 400, generator=generator) * 3
    wanted = [Draw(*row) for row in rows]
    together = choose_tokens(logits, wanted)
    alone = [choose_tokens(logits[i : i + 1], [draw])[0] for i, draw in enumerate(wanted)]
    backwards = choose_tokens(logits.flip(0), wanted[::-1])[::-1]
    assert together == alone == backwards


def test_no_rows_need_no_logits() -> None:
    assert choose_tokens(torch.empty(0, 9), []) == []


def test_random_numbers_are_uniform_and_neighbours_are_unrelated() -> None:
    numbers = [uniform(seed, index) for seed in range(100) for index in range(100)]
    assert all(0 <= number < 1 for number in numbers)
    assert sum(numbers) / len(numbers) == pytest.approx(0.5, abs=0.01)
    pairs = list(pairwise(numbers))
    covariance = sum((a - 0.5) * (b - 0.5) for a, b in pairs) / len(pairs)
    assert abs(covariance) < 0.003
    assert len(set(numbers)) > 9900
