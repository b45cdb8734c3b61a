"""What is drawn, against plain definitions, and that it is the same in any batch."""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.engine.sampling import choose_tokens, uniform
from inference.engine.step import Draw
from inference.engine.types import SamplingParams

pytestmark = pytest.mark.usefixtures("form")


def draws(count: int, *, seed: int = 3, **params: Any) -> list[Draw]:
    wanted = SamplingParams(max_tokens=9, **params)
    return [
        Draw(params=wanted, seed=seed, index=index, tokens=[], prompt_tokens=0, grammar=None)
        for index in range(count)
    ]


def tokens_of(logits: torch.Tensor, wanted: list[Draw]) -> list[int | None]:
    return [None if choice is None else choice.token for choice in choose_tokens(logits, wanted)]


def counts_of(logits: list[float], count: int = 4000, **params: Any) -> Counter[int]:
    tokens = tokens_of(torch.tensor(logits).expand(count, -1), draws(count, **params))
    return Counter(token for token in tokens if token is not None)


def kept_by_definition(
    logits: list[float], temperature: float, top_k: int, top_p: float, min_p: float
) -> dict[int, float]:
    """The cuts one after the other, in plain Python; token → probability."""
    weights = {token: math.exp((x - max(logits)) / temperature) for token, x in enumerate(logits)}
    order = sorted(weights, key=lambda token: -weights[token])
    if top_k:
        order = order[:top_k]
    mass, kept = sum(weights[token] for token in order), list[int]()
    while order and (not kept or sum(weights[token] for token in kept) < top_p * mass):
        kept.append(order.pop(0))
    kept = [token for token in kept if weights[token] >= min_p * max(weights.values())]
    total = sum(weights[token] for token in kept)
    return {token: weights[token] / total for token in kept}


def test_temperature_zero_is_the_best_token() -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0], [5.0, 4.9, -1.0]])
    assert tokens_of(logits, draws(2, temperature=0.0)) == [1, 0]


@pytest.mark.parametrize("cut", [{}, {"top_k": 2}, {"top_p": 0.5}, {"min_p": 0.1}])
@pytest.mark.parametrize("temperature", [5e-324, 1e-46, 1e-40, 1e-7, 2e-6])
def test_a_temperature_next_to_zero_is_the_best_token(temperature: float, cut: dict[str, Any]) -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0], [5.0, 4.9, -1.0]])
    assert tokens_of(logits, draws(2, temperature=temperature, **cut)) == [1, 0]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_frequencies_follow_the_tempered_distribution(temperature: float) -> None:
    """Pearson's chi-square at 15 degrees of freedom: 37.7 is exceeded once in a thousand."""
    logits = torch.randn(16, generator=torch.Generator().manual_seed(5)).tolist()
    expected = kept_by_definition(logits, temperature, 0, 1.0, 0.0)
    found = counts_of(logits, 8000, temperature=temperature)
    chi_square = sum((found[t] - 8000 * p) ** 2 / (8000 * p) for t, p in expected.items())
    assert chi_square < 37.7


CUTS = [
    {"top_k": 1}, {"top_k": 3}, {"top_k": 15}, {"top_p": 0.5}, {"top_p": 1e-9}, {"min_p": 0.2},
    {"min_p": 1.0}, {"top_k": 4, "top_p": 0.6}, {"top_p": 0.9, "min_p": 0.4},
    {"top_k": 5, "top_p": 0.9, "min_p": 0.3}, {"top_k": 900, "top_p": 0.8},
]  # fmt: skip


@pytest.mark.parametrize("cuts", CUTS)
@pytest.mark.parametrize("temperature", [0.7, 1.5])
def test_cuts_keep_what_their_definition_keeps_in_proportion(
    cuts: dict[str, Any], temperature: float
) -> None:
    logits = torch.randn(16, generator=torch.Generator().manual_seed(9)).tolist()
    settings_ = {"top_k": 0, "top_p": 1.0, "min_p": 0.0} | cuts
    expected = kept_by_definition(logits, temperature, **settings_)
    found = counts_of(logits, 3000, temperature=temperature, **settings_)
    assert set(found) <= set(expected)
    assert {token for token, p in expected.items() if p > 0.01} <= set(found)
    for token, probability in expected.items():
        assert found[token] / 3000 == pytest.approx(probability, abs=0.04)


@pytest.mark.parametrize("cuts", [{"top_p": 0.5}, {"top_k": 150}, {"min_p": 0.9}])
def test_cuts_that_reach_beyond_the_first_candidates_are_exact(cuts: dict[str, Any]) -> None:
    """300 nearly equal tokens: more than the 64 candidates looked at first stay."""
    logits = [-1e-4 * place for place in range(300)] + [-50.0] * 10
    expected = kept_by_definition(logits, 1.0, **({"top_k": 0, "top_p": 1.0, "min_p": 0.0} | cuts))
    found = counts_of(logits, 6000, **cuts)
    assert set(found) <= set(expected)
    assert len(found) > 0.97 * len(expected)


def test_extreme_temperatures_and_logits_stay_finite() -> None:
    logits = torch.tensor([[3e38, -3e38, 1.0], [1.0, 2.0, 3.0]])
    assert tokens_of(logits, draws(2, temperature=1e-6)) == [0, 2]
    assert all(token is not None for token in tokens_of(logits, draws(2, temperature=1e6)))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_rows_that_are_not_finite_have_no_token_and_harm_no_other(bad: float, temperature: float) -> None:
    logits = torch.randn(3, 50, generator=torch.Generator().manual_seed(2))
    wanted = draws(3, temperature=temperature, logprobs=2)
    expected = choose_tokens(logits, wanted)
    logits[1, 7] = bad
    found = choose_tokens(logits, wanted)
    assert found[1] is None
    assert [found[0], found[2]] == [expected[0], expected[2]]


@st.composite
def rows_of_any_kind(draw: st.DrawFn) -> Draw:
    params = SamplingParams(
        max_tokens=9,
        temperature=draw(st.sampled_from([0.0, 0.3, 1.0, 1.7])),
        top_k=draw(st.sampled_from([0, 0, 1, 5, 64, 65, 300])),
        top_p=draw(st.sampled_from([0.1, 0.9, 1.0])),
        min_p=draw(st.sampled_from([0.0, 0.0, 0.05, 0.5])),
        repetition_penalty=draw(st.sampled_from([1.0, 1.0, 1.3])),
        presence_penalty=draw(st.sampled_from([0.0, 0.0, 1.5])),
        frequency_penalty=draw(st.sampled_from([0.0, 0.0, -0.5])),
        logit_bias=draw(st.sampled_from([(), (), ((3, 9.0), (7, -100.0))])),
        logprobs=draw(st.sampled_from([None, None, 0, 5, 20])),
    )
    text = draw(st.lists(st.integers(0, 399), max_size=20))
    return Draw(
        params=params,
        seed=draw(st.integers(-(2**70), 2**70)),
        index=draw(st.integers(0, 500)),
        tokens=text,
        prompt_tokens=len(text) // 2,
        grammar=None,
    )


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(rows_of_any_kind(), min_size=2, max_size=12))
def test_a_row_is_drawn_alike_in_any_batch_to_the_bit(wanted: list[Draw]) -> None:
    generator = torch.Generator().manual_seed(len(wanted))
    logits = torch.randn(len(wanted), 400, generator=generator) * 3
    before = logits.clone()
    together = choose_tokens(logits, wanted)
    alone = [choose_tokens(logits[i : i + 1], [draw])[0] for i, draw in enumerate(wanted)]
    backwards = choose_tokens(logits.flip(0), wanted[::-1])[::-1]
    assert together == alone == backwards
    assert torch.equal(logits, before)


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


def test_random_numbers_stay_what_they_were() -> None:
    """Seeds are promises to callers: the stream must not change with a version."""
    assert [round(uniform(7, index) * 2**24) for index in range(3)] == EXPECTED_STREAM


EXPECTED_STREAM = [8797065, 5069051, 15787297]
