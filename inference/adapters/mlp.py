"""Gated MLPs of tokens whose adapters change them: the two products apart, since changes go between them.

Slower than the fused operation, and only for the tokens that need it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as fn

from inference.adapters.files import Adapter
from inference.adapters.plan import AdapterPlan, low_rank
from inference.layers.forms import Forms, Linear
from moe_ops.grouped_mlp import PackedExperts
from moe_ops.linear import PackedMatrix
from moe_ops.linear.packing import TILE


@dataclass(frozen=True, slots=True)
class ExpertNames:
    """What the experts of one packed stack are called in a checkpoint.

    Expert `e` is `prefix.experts.e`; the last `shared` together are `prefix.shared_experts`, split by width.
    Without routed experts (`routed` 0) the stack is `prefix` itself.
    """

    prefix: str
    routed: int
    shared: int

    def module(self, expert: int) -> tuple[str, int]:
        """The module that `expert` is, and which slice of its width."""
        if not self.routed:
            return self.prefix, expert
        if expert < self.routed:
            return f"{self.prefix}.experts.{expert}", 0
        return f"{self.prefix}.shared_experts", expert - self.routed


def adapted_mlp_(
    out_TD: torch.Tensor,
    x_TD: torch.Tensor,
    *,
    plan: AdapterPlan,
    names: ExpertNames,
    experts: PackedExperts,
    weights_TK: torch.Tensor,
    experts_TK: torch.Tensor,
    forms: Forms,
) -> None:
    """Add the experts' results to `out_TD`, each token's under its own adapter."""
    plain_T = torch.ones(len(x_TD), dtype=torch.bool)
    for adapter, token_N in zip(plan.adapters, plan.token_N, strict=True):
        if adapter.touches(f"{names.prefix}."):
            plain_T[token_N] = False
            mlp = _AdaptedMlp(adapter, names, experts, forms.linear)
            out_TD[token_N] += mlp(x_TD[token_N], weights_TK[token_N], experts_TK[token_N])
    rest_N = plain_T.nonzero().squeeze(1)
    if len(rest_N):
        out_ND = torch.zeros(len(rest_N), x_TD.shape[1])
        forms.grouped_mlp_(
            out_ND,
            x_TD[rest_N],
            experts=experts,
            weights_TK=weights_TK[rest_N],
            experts_TK=experts_TK[rest_N],
            shared=names.shared,
        )
        out_TD[rest_N] += out_ND


@dataclass(frozen=True, slots=True)
class _AdaptedMlp:
    """The experts of one stack as one adapter changes them."""

    adapter: Adapter
    names: ExpertNames
    experts: PackedExperts
    linear: Linear

    def __call__(
        self, x_ND: torch.Tensor, weights_NK: torch.Tensor, experts_NK: torch.Tensor
    ) -> torch.Tensor:
        out_ND = torch.zeros_like(x_ND)
        for expert, row_M, weight_M1 in _uses(
            weights_NK, experts_NK, self.experts.experts, self.names.shared
        ):
            out_ND.index_add_(0, row_M, self._expert(x_ND[row_M], expert) * weight_M1)
        return out_ND

    def _expert(self, x_MD: torch.Tensor, expert: int) -> torch.Tensor:
        stack = self.experts
        module, part = self.names.module(expert)
        width = slice(part * stack.width, (part + 1) * stack.width)
        gate_MI, up_MI = _gate_up(x_MD, stack, expert, self.linear)
        self._change_(gate_MI, f"{module}.gate_proj", x_MD, width)
        self._change_(up_MI, f"{module}.up_proj", x_MD, width)
        act_MI = fn.silu(gate_MI) * up_MI
        y_MD = self.linear(act_MI, _one(stack.down, expert, stack.experts))[:, : stack.hidden].contiguous()
        if change := self.adapter.modules.get(f"{module}.down_proj"):
            wide_MW = act_MI.new_zeros(len(act_MI), change.a.inputs)
            wide_MW[:, width] = act_MI
            y_MD += low_rank(wide_MW, change, self.linear)
        return y_MD

    def _change_(self, out_MI: torch.Tensor, module: str, x_MD: torch.Tensor, width: slice) -> None:
        if change := self.adapter.modules.get(module):
            out_MI += low_rank(x_MD, change, self.linear)[:, width]


def _uses(
    weights_NK: torch.Tensor, experts_NK: torch.Tensor, count: int, shared: int
) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
    """Each expert in use with its rows and their weights."""
    for expert in experts_NK.unique().tolist():
        row_M, slot_M = torch.where(experts_NK == expert)
        yield expert, row_M, weights_NK[row_M, slot_M].unsqueeze(1)
    every_N = torch.arange(len(experts_NK))
    for expert in range(count - shared, count):
        yield expert, every_N, torch.ones(len(experts_NK), 1)


def _gate_up(
    x_MD: torch.Tensor, experts: PackedExperts, expert: int, linear: Linear
) -> tuple[torch.Tensor, torch.Tensor]:
    both_MJ = linear(x_MD, _one(experts.gate_up, expert, experts.experts))
    turns_MX2Y = both_MJ.unflatten(1, (-1, 2, TILE))  # gate and up take turns, a tile each
    gate_MI, up_MI = (turns_MX2Y[:, :, side].flatten(1)[:, : experts.width].contiguous() for side in (0, 1))
    return gate_MI, up_MI


def _one(stack: PackedMatrix, expert: int, count: int) -> PackedMatrix:
    """One expert's matrix out of a stack of `count`; shares its memory."""
    tiles = stack.data.shape[0] // count
    mine = slice(expert * tiles, (expert + 1) * tiles)
    scales = stack.scales[mine] if len(stack.scales) else stack.scales
    return replace(stack, outputs=tiles * TILE, data=stack.data[mine], scales=scales)
