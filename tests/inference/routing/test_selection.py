"""Kept sets always leave the router enough, whatever the scores are."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.routing.profile import ProfileError
from inference.routing.selection import enough_left, keep_best, least_size
from moe_ops.router import RouterSpec, route


@st.composite
def specs(draw: st.DrawFn) -> tuple[RouterSpec, int]:
    groups = draw(st.sampled_from([1, 2, 4]))
    per_group = draw(st.integers(2, 5))
    kept = draw(st.integers(1, groups))
    top_k = draw(st.integers(1, per_group * kept))
    scoring: Literal["softmax", "sigmoid"] = draw(st.sampled_from(["softmax", "sigmoid"]))
    return RouterSpec(top_k, groups, kept, scoring, normalize=True, scale=1.0), groups * per_group


@settings(max_examples=60, deadline=None)
@given(specs(), st.data())
def test_routing_among_kept_experts_stays_among_them(
    made: tuple[RouterSpec, int], data: st.DataObject
) -> None:
    spec, experts = made
    size = data.draw(st.integers(least_size(spec, experts), experts))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 1000)))
    kept_LE = keep_best(torch.rand(2, experts, generator=generator), size, spec)
    assert kept_LE.sum(-1).unique().numel() == 1
    assert int(kept_LE[0].sum()) <= size
    for kept_E in kept_LE:
        assert enough_left(kept_E, spec)
        bias_E = torch.full((experts,), -torch.inf).masked_fill(kept_E, 0.0)
        x_TD, router_ED = torch.randn(9, 6, generator=generator), torch.randn(experts, 6, generator=generator)
        biased = bias_E if spec.scoring == "sigmoid" else None
        if biased is not None:
            _, chosen_TK = route(x_TD, router_ED, biased, spec)
            assert kept_E[chosen_TK].all()


def test_without_groups_the_best_are_kept() -> None:
    spec = RouterSpec(2, 1, 1, "softmax", normalize=False, scale=1.0)
    kept_LE = keep_best(torch.tensor([[0.1, 0.9, 0.3, 0.5]]), 3, spec)
    assert kept_LE.tolist() == [[False, True, True, True]]


def test_too_few_experts_are_refused() -> None:
    spec = RouterSpec(4, 4, 2, "sigmoid", normalize=True, scale=1.0)
    with pytest.raises(ProfileError, match="expected 4 … 8, found 3"):
        keep_best(torch.rand(1, 8), 3, spec)


def test_a_lone_expert_in_a_v3_group_is_not_enough() -> None:
    spec = RouterSpec(2, 2, 1, "sigmoid", normalize=True, scale=1.0)
    assert not enough_left(torch.tensor([True, True, True, False]), spec)
    assert enough_left(torch.tensor([True, True, False, False]), spec)
