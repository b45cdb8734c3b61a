"""From requests' profiles to what each token of a step may do."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from inference.routing.choice import hashed_choice, spread_constant, weigh_chosen
from inference.routing.plan import CONSTANT_TOKENS_MAX, plan_build
from inference.routing.profile import RoutingProfile
from inference.routing.request import RequestRouting
from moe_ops.router import RouterSpec

SPEC = RouterSpec(2, 1, 1, "softmax", normalize=True, scale=2.0)
POOL = RoutingProfile(
    mode="pool", domain="code", checkpoint="c", layers=2, experts=5, size=3, coverage_min=0.5, covered=0.8,
    tokens=100, experts_LM=torch.tensor([[0, 2, 4], [1, 2, 3]]),
)  # fmt: skip
SESSION = replace(POOL, mode="session", experts_LM=None)
HASH = replace(
    POOL,
    mode="hash",
    experts_LM=None,
    table_LVK=torch.tensor([[[0, 1]] * 4, [[3, 4]] * 4], dtype=torch.int16),
)


def frozen(profile: RoutingProfile, mass_LE: torch.Tensor | None = None) -> RequestRouting:
    routing = RequestRouting(profile, SPEC)
    if mass_LE is not None:
        routing.add(mass_LE)
    routing.freeze()
    return routing


def test_a_prompt_well_covered_is_answered_under_its_profile() -> None:
    routing = frozen(POOL, torch.tensor([[3.0, 1, 0, 0, 0], [0, 1, 0, 0, 0]]))
    assert routing.fixed
    assert routing.covered() == pytest.approx(0.8)
    assert routing.report == POOL.id


def test_a_prompt_that_is_not_covered_falls_back_and_says_so() -> None:
    routing = frozen(POOL, torch.tensor([[0.0, 3, 0, 0, 0], [0, 1, 0, 0, 0]]))
    assert not routing.fixed
    assert routing.report == "dynamic; covered 0.250 of 0.500"


def test_with_nothing_seen_the_profile_is_taken_at_its_word() -> None:
    assert frozen(POOL).fixed


def test_a_session_keeps_what_its_own_prompt_used_and_later_tokens_change_nothing() -> None:
    routing = frozen(SESSION, torch.tensor([[5.0, 4, 3, 2, 1], [1, 2, 3, 4, 5]]))
    routing.add(torch.tensor([[0.0, 0, 0, 0, 99], [99, 0, 0, 0, 0]]))
    assert routing.kept_LE is not None
    assert routing.kept_LE.int().tolist() == [[1, 1, 1, 0, 0], [0, 0, 1, 1, 1]]


def test_each_token_is_restricted_by_its_own_request_alone() -> None:
    session = frozen(SESSION, torch.tensor([[5.0, 4, 3, 2, 1], [1, 2, 3, 4, 5]]))
    plan = plan_build([None, frozen(POOL), session], torch.tensor([0, 1, 2]))
    assert plan is not None
    assert plan.allowed_LTE is not None
    assert plan.allowed_LTE[0].int().tolist() == [[1, 1, 1, 1, 1], [1, 0, 1, 0, 1], [1, 1, 1, 0, 0]]
    assert plan.constant_LM is None
    assert plan.hashed_T is None


def test_steps_without_fixed_routing_have_no_plan() -> None:
    assert plan_build([None, None], torch.tensor([0, 1])) is None


def test_few_tokens_of_one_pool_run_in_constant_shape() -> None:
    one = frozen(POOL)
    plan = plan_build([one, frozen(POOL)], torch.tensor([0, 1]))
    assert plan is not None
    assert plan.constant_LM is POOL.experts_LM
    many = plan_build(
        [one] * (CONSTANT_TOKENS_MAX + 1), torch.zeros(CONSTANT_TOKENS_MAX + 1, dtype=torch.int64)
    )
    assert many is not None
    assert many.constant_LM is None
    mixed = plan_build([one, None], torch.tensor([0, 1]))
    assert mixed is not None
    assert mixed.constant_LM is None


def test_hashed_tokens_take_the_tables_experts_with_the_routers_weights() -> None:
    plan = plan_build([frozen(HASH), None], torch.tensor([2, 3]))
    assert plan is not None
    scores_TE = torch.tensor([[0.1, 0.3, 0.6, 0.0, 0.0], [0.1, 0.3, 0.6, 0.0, 0.0]])
    weights_TK, experts_TK = torch.tensor([[1.0, 1.0], [1.0, 1.0]]), torch.tensor([[2, 1], [2, 1]])
    weights, experts = hashed_choice(scores_TE, weights_TK, experts_TK, plan=plan, layer=0, spec=SPEC)
    assert experts.tolist() == [[0, 1], [2, 1]]
    torch.testing.assert_close(weights, torch.tensor([[0.5, 1.5], [1.0, 1.0]]))


def test_weights_that_all_vanish_stay_finite() -> None:
    weights = weigh_chosen(torch.zeros(1, 5), torch.tensor([[0, 1]]), SPEC)
    assert weights.tolist() == [[0.0, 0.0]]


def test_the_constant_form_is_the_same_mixture() -> None:
    weights, experts = spread_constant(
        torch.tensor([[0.7, 0.3], [0.6, 0.4]]),
        torch.tensor([[4, 0], [2, 4]]),
        torch.tensor([0, 2, 4]),
        experts=6,
    )
    assert experts.is_contiguous()
    assert weights.is_contiguous()
    assert experts.tolist() == [[0, 2, 4], [0, 2, 4]]
    torch.testing.assert_close(weights, torch.tensor([[0.3, 0.0, 0.7], [0.0, 0.6, 0.4]]))
