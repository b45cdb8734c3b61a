"""What each expert is worth on a text, watched while a model reads it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from inference.routing.observer import GateMass, LayerChoice, RoutingObserver, named
from inference.routing.plan import RoutingPlan
from moe_ops.grouped_mlp import PackedExperts, packed_mlp_

_OUTPUTS_MAX = 1 << 22  # numbers of experts' outputs held at once


class ExpertWorth:
    """Sums `gate · ‖expert output‖` by layer and expert: what the mixture would lose without it."""

    def __init__(self, *, layers: int, experts: int) -> None:
        self.worth_LE = torch.zeros(layers, experts, dtype=torch.float64)

    def see(self, choice: LayerChoice) -> None:
        """Add this layer's choice."""
        x_TD, weights_TK, experts_TK = choice.x_TD, choice.weights_TK, choice.experts_TK
        if choice.layer >= len(self.worth_LE):
            return
        together = max(_OUTPUTS_MAX // x_TD[:1].expand(experts_TK.shape[1], -1).numel(), 1)
        for start in range(0, len(x_TD), together):
            here = slice(start, start + together)
            norm_N = output_norms(x_TD[here], experts_TK[here], choice.experts)
            worth_N = weights_TK[here].flatten().double() * norm_N
            self.worth_LE[choice.layer].index_add_(0, experts_TK[here].flatten(), worth_N)


def output_norms(x_TD: torch.Tensor, experts_TK: torch.Tensor, experts: PackedExperts) -> torch.Tensor:
    """The length of each chosen expert's output for its token, before weighting (fp64, T · K)."""
    chosen = experts_TK.shape[1]
    in_ND = x_TD.repeat_interleave(chosen, dim=0)
    out_ND = torch.zeros_like(in_ND)
    one_N1 = torch.ones(len(in_ND), 1)
    packed_mlp_(
        out_ND, in_ND, experts=experts, weights_TK=one_N1, experts_TK=experts_TK.reshape(-1, 1).contiguous()
    )
    return out_ND.double().square().sum(1).sqrt()


class TokenMass:
    """Sums gate mass by layer, token id and expert, for the `ids` that occur (fp32)."""

    def __init__(self, ids: Sequence[int], *, layers: int, experts: int) -> None:
        self.ids_S = torch.tensor(sorted(set(ids)))
        self.mass_LSE = torch.zeros(layers, len(self.ids_S), experts)
        self._place_T = torch.empty(0, dtype=torch.int64)

    def begin(self, token_T: torch.Tensor) -> None:
        """The tokens of the pass that comes next."""
        self._place_T = torch.searchsorted(self.ids_S, token_T)

    def see(self, choice: LayerChoice) -> None:
        """Add this layer's choice."""
        if choice.layer < len(self.mass_LSE):
            place = self._place_T[:, None], choice.experts_TK
            self.mass_LSE[choice.layer].index_put_(place, choice.weights_TK, accumulate=True)


class Covered:
    """How much of the gate mass of dynamically routed tokens a plan would have let through, by layer."""

    def __init__(self, plan: RoutingPlan) -> None:
        self._plan = plan
        self.inside_L = torch.zeros(plan.layers, dtype=torch.float64)
        self.total_L = torch.zeros(plan.layers, dtype=torch.float64)

    def see(self, choice: LayerChoice) -> None:
        """Add this layer's choice."""
        plan, layer = self._plan, choice.layer
        weights_TK, experts_TK = choice.weights_TK, choice.experts_TK
        if layer >= plan.layers:
            return
        if plan.hashed_LTK is not None:
            inside_TK = named(experts_TK, plan.hashed_LTK[layer])
        elif plan.allowed_LTE is not None:
            inside_TK = plan.allowed_LTE[layer].gather(1, experts_TK)
        else:
            inside_TK = torch.ones_like(experts_TK, dtype=torch.bool)
        self.inside_L[layer] += (weights_TK * inside_TK).sum().double()
        self.total_L[layer] += weights_TK.sum().double()


class Together:
    """Several observers of one pass."""

    def __init__(self, *observers: RoutingObserver) -> None:
        self._observers = observers

    def see(self, choice: LayerChoice) -> None:
        """Show each of them this layer's choice."""
        for observer in self._observers:
            observer.see(choice)


def half_mass(tokens: int, prompt: int, *, layers: int, experts: int) -> GateMass:
    """Gate mass of a window's prompt (row 0) and answer (row 1)."""
    row_T = (torch.arange(tokens) >= prompt).long()
    return GateMass(row_T, rows=2, layers=layers, experts=experts)
