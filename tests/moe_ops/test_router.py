from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moe_ops.router import RouterSpec, reference, route


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


@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    seed=st.integers(0, 10_000),
    tokens=st.sampled_from([1, 7, 33]),
    width=st.sampled_from([8, 33, 192]),
    biased=st.booleans(),
    normalize=st.booleans(),
    groups_kept=st.integers(2, 4),
    limits=st.sampled_from(["none", "one for all", "one each"]),
)
def test_native_equals_the_definition(
    *,
    isa: str,
    seed: int,
    tokens: int,
    width: int,
    biased: bool,
    normalize: bool,
    groups_kept: int,
    limits: str,
) -> None:
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(tokens, width, generator=random)
    weight = torch.randn(16, width, generator=random) * width**-0.5
    bias = torch.randn(16, generator=random) if biased else None
    s = spec(scoring="sigmoid" if biased else "softmax", normalize=normalize, groups_kept=groups_kept)
    allowed = None
    if limits != "none":
        shape = (16,) if limits == "one for all" else (tokens, 16)
        allowed = torch.rand(shape, generator=random) < 0.6
        allowed.unflatten(-1, (4, 4))[..., :2] = True  # enough in every group
    found, expected = route(x, weight, bias, s, allowed), reference.route(x, weight, bias, s, allowed)
    for token in range(tokens):
        pairs = [
            dict(zip(experts[token].tolist(), weights[token].tolist(), strict=True))
            for weights, experts in (found, expected)
        ]
        assert pairs[0] == pytest.approx(pairs[1], rel=1e-4), isa
        alone = route(
            x[token : token + 1],
            weight,
            bias,
            s,
            allowed if allowed is None or allowed.dim() == 1 else allowed[token : token + 1],
        )
        assert alone[0][0].equal(found[0][token]), isa
        assert alone[1][0].equal(found[1][token]), isa


@pytest.mark.parametrize("threads", [1, 2])
def test_native_cuts_large_work_without_changing_a_bit(isa: str, threads: int) -> None:
    random = torch.Generator().manual_seed(7)
    x, weight = torch.randn(101, 2056, generator=random), torch.randn(72, 2056, generator=random) * 2056**-0.5
    bias, s = torch.randn(72, generator=random), spec(groups=6, groups_kept=3, top_k=7)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        weights, experts = route(x, weight, bias, s)
    finally:
        torch.set_num_threads(before)
    expected = reference.route(x, weight, bias, s)
    order, wanted = experts.argsort(dim=1), expected[1].argsort(dim=1)
    assert experts.gather(1, order).equal(expected[1].gather(1, wanted)), isa
    torch.testing.assert_close(weights.gather(1, order), expected[0].gather(1, wanted), rtol=1e-4, atol=1e-6)
    for token in (0, 47, 50, 51, 100):
        alone = route(x[token : token + 1], weight, bias, s)
        assert alone[0][0].equal(weights[token]), isa
        assert alone[1][0].equal(experts[token]), isa


@pytest.mark.parametrize("experts", [6, 40])
def test_native_gives_what_is_no_number_first_and_forbidden_experts_no_weight(isa: str, experts: int) -> None:
    weight = torch.arange(experts, dtype=torch.float32)[:, None] / experts
    s = spec(top_k=4, groups=1, groups_kept=1, normalize=False)
    allowed = torch.zeros(experts, dtype=torch.bool)
    allowed[[2, 5]] = True
    weights, chosen = route(torch.ones(1, 1), weight, None, s, allowed)
    assert chosen.tolist() == [[5, 2, 0, 1]], isa
    assert weights[0, 2:].tolist() == [0.0, 0.0], isa
    weight[[3, 4]] = math.nan
    _, chosen = route(torch.ones(1, 1), weight, None, s)
    assert chosen[0, :3].tolist() == [3, 4, experts - 1], isa


def test_native_gives_ties_to_the_lowest_expert(isa: str) -> None:
    weights, experts = route(
        torch.ones(1, 4), torch.zeros(8, 4), None, spec(groups_kept=4, scoring="softmax")
    )
    assert experts.tolist() == [[0, 1, 2]], isa
    assert weights[0].tolist() == pytest.approx([2.5 / 3] * 3)


@pytest.mark.parametrize("form", [route, reference.route])
def test_places_that_no_allowed_expert_fills_have_weight_zero(form: Any, isa: str) -> None:
    allowed = torch.zeros(8, dtype=torch.bool)
    allowed[5] = True
    weights, experts = form(torch.ones(1, 4), torch.zeros(8, 4), torch.zeros(8), spec(groups_kept=4), allowed)
    assert sorted(zip(experts[0].tolist(), weights[0].tolist(), strict=True), key=lambda one: -one[1])[0] == (
        5,
        2.5,
    ), isa
    assert weights.sum() == 2.5
