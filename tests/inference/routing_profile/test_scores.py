"""What experts are worth, against the definition written out."""

from __future__ import annotations

import pytest
import torch

from inference.routing.observer import LayerChoice
from inference.routing.plan import RoutingPlan
from inference.routing_profile import scores
from inference.routing_profile.scores import Covered, ExpertWorth, Together, TokenMass, output_norms
from moe_ops.grouped_mlp import PackedExperts, pack_experts, unpack_experts

LAYERS, EXPERTS, HIDDEN = 2, 5, 16


@pytest.fixture
def stack() -> PackedExperts:
    """Five routed experts and a shared one."""
    generator = torch.Generator().manual_seed(3)
    gate_up_EJD = torch.randn(EXPERTS + 1, 16, HIDDEN, generator=generator)
    return pack_experts(gate_up_EJD, torch.randn(EXPERTS + 1, HIDDEN, 8, generator=generator), "float32")


@pytest.fixture
def choice() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    x_TD = torch.randn(7, HIDDEN, generator=generator)
    experts_TK = torch.stack([torch.randperm(EXPERTS, generator=generator)[:2] for _ in range(7)])
    return x_TD, torch.rand(7, 2, generator=generator), experts_TK


def expert_output(stack: PackedExperts, expert: int, x_D: torch.Tensor) -> torch.Tensor:
    gate_up_EJD, down_EDI = unpack_experts(stack)
    gate, up = (gate_up_EJD[expert] @ x_D).chunk(2)
    return down_EDI[expert] @ (torch.nn.functional.silu(gate) * up)


@pytest.mark.parametrize("together", [1 << 22, 40])
def test_worth_is_gate_times_the_length_of_the_output(
    stack: PackedExperts,
    choice: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    together: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scores, "_OUTPUTS_MAX", together)
    x_TD, weights_TK, experts_TK = choice
    worth = ExpertWorth(layers=LAYERS, experts=EXPERTS)
    for layer in (1, 2):  # the second is a draft module's
        worth.see(LayerChoice(layer, x_TD, weights_TK, experts_TK, stack))
    wanted_E = torch.zeros(EXPERTS, dtype=torch.float64)
    for token in range(len(x_TD)):
        for slot, expert in enumerate(experts_TK[token].tolist()):
            wanted_E[expert] += weights_TK[token, slot] * expert_output(stack, expert, x_TD[token]).norm()
    torch.testing.assert_close(worth.worth_LE[1], wanted_E, rtol=1e-5, atol=1e-5)
    assert not worth.worth_LE[0].any()


def test_norms_leave_shared_experts_out(
    stack: PackedExperts, choice: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
) -> None:
    x_TD, _, experts_TK = choice
    norm = output_norms(x_TD[:1], experts_TK[:1, :1], stack)
    expected = expert_output(stack, int(experts_TK[0, 0]), x_TD[0]).norm().double()
    torch.testing.assert_close(norm[0], expected, rtol=1e-5, atol=1e-5)


def test_mass_is_summed_by_token_id(
    stack: PackedExperts, choice: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
) -> None:
    x_TD, weights_TK, experts_TK = choice
    ids = torch.tensor([9, 4, 9, 9, 4, 30, 9])
    mass = TokenMass(ids.tolist(), layers=LAYERS, experts=EXPERTS)
    mass.begin(ids)
    Together(mass).see(LayerChoice(0, x_TD, weights_TK, experts_TK, stack))
    assert mass.ids_S.tolist() == [4, 9, 30]
    wanted_SE = torch.zeros(3, EXPERTS)
    for token, place in enumerate([1, 0, 1, 1, 0, 2, 1]):
        wanted_SE[place].index_add_(0, experts_TK[token], weights_TK[token])
    torch.testing.assert_close(mass.mass_LSE[0], wanted_SE)


def test_covered_mass_is_what_the_plan_lets_through(
    stack: PackedExperts, choice: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
) -> None:
    x_TD, weights_TK, experts_TK = choice
    kept_E = torch.tensor([True, False, True, False, True])
    pool = Covered(RoutingPlan(1, allowed_LTE=kept_E.expand(1, 7, EXPERTS)))
    table_TK = torch.tensor([[0, 2]]).expand(7, 2)
    hashed = Covered(RoutingPlan(1, hashed_T=torch.ones(7, dtype=torch.bool), hashed_LTK=table_TK[None]))
    for covered in (pool, hashed):
        for layer in (0, 1):
            covered.see(LayerChoice(layer, x_TD, weights_TK, experts_TK, stack))
        torch.testing.assert_close(covered.total_L[0], weights_TK.sum().double())
    torch.testing.assert_close(pool.inside_L[0], weights_TK[kept_E[experts_TK]].sum().double())
    inside_TK = (experts_TK == 0) | (experts_TK == 2)
    torch.testing.assert_close(hashed.inside_L[0], weights_TK[inside_TK].sum().double())
