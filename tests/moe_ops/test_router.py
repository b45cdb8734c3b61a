from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_ops.router import RouterSpec, route


def spec(**changes: object) -> RouterSpec:
    fields: dict[str, Any] = {
        "top_k": 3,
        "groups": 4,
        "groups_kept": 2,
        "scoring": "sigmoid",
        "normalize": True,
        "scale": 2.5,
    }
    return RouterSpec(**(fields | changes))


def naive(logits: list[float], bias: list[float] | None, s: RouterSpec) -> dict[int, float]:
    """Expert → weight of one token, with plain lists and no tensor tricks."""
    if s.scoring == "sigmoid":
        scores = [1 / (1 + math.exp(-x)) for x in logits]
    else:
        total = sum(math.exp(x) for x in logits)
        scores = [math.exp(x) / total for x in logits]
    choice = [a + b for a, b in zip(scores, bias, strict=True)] if bias else scores
    size = len(choice) // s.groups
    best = 2 if bias else 1
    rank = [sum(sorted(choice[g * size : (g + 1) * size])[-best:]) for g in range(s.groups)]
    kept = sorted(range(s.groups), key=lambda g: -rank[g])[: s.groups_kept]
    allowed = [e for e in range(len(choice)) if e // size in kept]
    chosen = sorted(allowed, key=lambda e: -choice[e])[: s.top_k]
    total = sum(scores[e] for e in chosen) + 1e-20 if s.normalize else 1.0
    return {e: scores[e] / total * s.scale for e in chosen}


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10_000),
    biased=st.booleans(),
    normalize=st.booleans(),
    groups_kept=st.integers(1, 4),
    scale=st.sampled_from([1.0, 2.5, 16.0]),
)
def test_matches_the_formula(
    seed: int, biased: bool, normalize: bool, groups_kept: int, scale: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(5, 8, generator=generator)
    weight = torch.randn(16, 8, generator=generator)
    # A bias large enough to make some choices negative: masking with 0 instead of −inf would show.
    bias = torch.randn(16, generator=generator) * 2 if biased else None
    s = spec(
        scoring="sigmoid" if biased else "softmax",
        normalize=normalize,
        groups_kept=groups_kept,
        scale=scale,
    )
    weights, experts = route(x, weight, bias, s)
    for token, logits in enumerate((x.double() @ weight.double().T).tolist()):
        expected = naive(logits, bias.tolist() if bias is not None else None, s)
        found = dict(zip(experts[token].tolist(), weights[token].tolist(), strict=True))
        assert found == pytest.approx(expected, rel=1e-4)


def test_bias_steers_the_choice_but_not_the_weight() -> None:
    x, weight = torch.ones(1, 1), torch.zeros(8, 1)
    bias = torch.tensor([0.0, 0, 0, 0, 0, 0, 9, 8])
    weights, experts = route(x, weight, bias, spec(top_k=2, normalize=False, scale=1.0))
    assert sorted(experts[0].tolist()) == [6, 7]
    assert weights[0].tolist() == [0.5, 0.5]


def test_scores_that_underflow_give_zero_weights_not_nan() -> None:
    weights, _ = route(torch.ones(1, 1), torch.full((8, 1), -200.0), torch.zeros(8), spec())
    assert weights.eq(0).all()


def test_computes_in_fp32_whatever_the_input() -> None:
    x = torch.randn(4, 8).bfloat16()
    weights, _ = route(x, torch.randn(16, 8), torch.randn(16), spec())
    assert weights.dtype == torch.float32
