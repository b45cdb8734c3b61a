"""The sparse part of a block: group-limited sigmoid routing with a balancing bias, and the experts' products.

Shape suffixes: N tokens, D hidden, E experts, G groups, K chosen experts per token, I expert width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from inference.models.config import ModelConfig


class Mlp(nn.Module):
    """A gated SiLU feed-forward network, used dense and as the shared expert."""

    def __init__(self, hidden: int, width: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(hidden, width, bias=False)
        self.up_proj = nn.Linear(hidden, width, bias=False)
        self.down_proj = nn.Linear(width, hidden, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))
        return result


class Router(nn.Module):
    """Chooses experts by score + bias and weighs them by score alone, as DeepSeek-V3 does."""

    e_score_correction_bias: torch.Tensor
    load_E: torch.Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        experts = config.n_routed_experts
        self.weight = nn.Parameter(torch.empty(experts, config.hidden_size))
        self.register_buffer("e_score_correction_bias", torch.zeros(experts))
        self.register_buffer("load_E", torch.zeros(experts), persistent=False)

    def forward(self, x_ND: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """`(weight_NK, expert_NK)`; counts the load while training."""
        score_NE = functional.linear(x_ND.float(), self.weight.float()).sigmoid()
        with torch.no_grad():
            expert_NK = self._choose(score_NE)
            if self.training:
                self.load_E += torch.bincount(expert_NK.flatten(), minlength=len(self.load_E))
        weight_NK = score_NE.gather(1, expert_NK)
        if self.config.norm_topk_prob:
            weight_NK = weight_NK / (weight_NK.sum(dim=-1, keepdim=True) + 1e-20)
        return weight_NK * self.config.routed_scaling_factor, expert_NK

    def _choose(self, score_NE: torch.Tensor) -> torch.Tensor:
        groups = self.config.n_group
        choice_NGE = (score_NE + self.e_score_correction_bias).unflatten(-1, (groups, -1))
        group_score_NG = choice_NGE.topk(2, dim=-1).values.sum(dim=-1)
        kept = group_score_NG.topk(self.config.topk_group, dim=-1, sorted=False).indices
        dropped_NG = torch.ones_like(group_score_NG, dtype=torch.bool).scatter(1, kept, False)
        choice_NE = choice_NGE.masked_fill(dropped_NG[..., None], float("-inf")).flatten(1)
        chosen_NK: torch.Tensor = choice_NE.topk(
            self.config.num_experts_per_tok, dim=-1, sorted=False
        ).indices
        return chosen_NK


class Moe(nn.Module):
    """Routed experts, stored stacked, plus the shared one."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        experts, hidden, width = config.n_routed_experts, config.hidden_size, config.moe_intermediate_size
        self.gate = Router(config)
        self.gate_up_E2ID = nn.Parameter(torch.empty(experts, 2, width, hidden))
        self.down_EDI = nn.Parameter(torch.empty(experts, hidden, width))
        self.shared_experts = Mlp(hidden, width * config.n_shared_experts)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x_ND = x.flatten(0, -2)
        weight_NK, expert_NK = self.gate(x_ND)
        routed: torch.Tensor = self._routed(x_ND, weight_NK, expert_NK).view_as(x)
        shared: torch.Tensor = self.shared_experts(x)
        return routed + shared

    def _routed(self, x_ND: torch.Tensor, weight_NK: torch.Tensor, expert_NK: torch.Tensor) -> torch.Tensor:
        """Tokens sorted by expert, one product per expert, and back; M = N × K token copies."""
        chosen = expert_NK.shape[1]
        expert_M = expert_NK.flatten()
        order_M = expert_M.argsort(stable=True)
        back_M = torch.empty_like(order_M).scatter_(0, order_M, torch.arange(len(order_M)))
        counts = torch.bincount(expert_M, minlength=len(self.gate_up_E2ID)).tolist()
        copy_MD = x_ND[:, None].expand(-1, chosen, -1).flatten(0, 1)
        parts = reordered(copy_MD, order_M, back_M).split(counts)
        outputs = [
            _expert(part, gate_up, down)
            for part, gate_up, down in zip(
                parts, self.gate_up_E2ID.unbind(), self.down_EDI.unbind(), strict=True
            )
            if len(part)
        ]
        output_MD = reordered(torch.cat(outputs), back_M, order_M)
        output_NKD = output_MD.view(-1, chosen, output_MD.shape[-1])
        return (output_NKD * weight_NK[..., None]).sum(dim=1)


def _expert(x: torch.Tensor, gate_up_2ID: torch.Tensor, down_DI: torch.Tensor) -> torch.Tensor:
    gate, up = functional.linear(x, gate_up_2ID.flatten(0, 1)).chunk(2, dim=-1)
    return functional.linear(functional.silu(gate) * up, down_DI)


class Reorder(torch.autograd.Function):
    """Rows in a new order; the gradient is a gather too, several times faster here than a scattered sum."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, order: torch.Tensor, back: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(back)
        return x.index_select(0, order)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return gradients[0].index_select(0, ctx.saved_tensors[0]), None, None


def reordered(x: torch.Tensor, order: torch.Tensor, back: torch.Tensor) -> torch.Tensor:
    """``x[order]``; ``back`` is the inverse of ``order``."""
    moved: torch.Tensor = Reorder.apply(x, order, back)  # type: ignore[no-untyped-call]  # torch types it not
    return moved
