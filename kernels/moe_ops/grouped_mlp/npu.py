"""Grouped products by Ascend's own operations. Unmeasured: never run on an NPU."""

from __future__ import annotations

import torch

from moe_ops.accelerator.npu import operations
from moe_ops.grouped_mlp.dense import dense_experts
from moe_ops.grouped_mlp.packed import with_shared
from moe_ops.grouped_mlp.packing import PackedExperts


def grouped_mlp_(
    out_TD: torch.Tensor,
    x_TD: torch.Tensor,
    *,
    gate_up_EDJ: torch.Tensor,
    down_EID: torch.Tensor,
    weights_TK: torch.Tensor,
    experts_TK: torch.Tensor,
) -> torch.Tensor:
    """As the reference, with experts that are not here, below 0 or too high, adding nothing."""
    experts = len(down_EID)
    expert_M = experts_TK.flatten()
    expert_M = torch.where((expert_M >= 0) & (expert_M < experts), expert_M, experts)
    sorted_M, order_M = expert_M.sort(stable=True)
    token_M = order_M.div(experts_TK.shape[1], rounding_mode="floor")
    count_E = expert_M.new_zeros(experts + 1).scatter_add_(0, expert_M, torch.ones_like(expert_M))[:experts]
    both_MJ = _product(x_TD.index_select(0, token_M), gate_up_EDJ, count_E)
    y_MD = _product(operations().npu_swiglu(both_MJ, dim=-1), down_EID, count_E)
    weight_M1 = weights_TK.flatten().index_select(0, order_M).unsqueeze(1)
    # Rows behind the last group are not written by the product.
    y_MD = torch.where((sorted_M < experts).unsqueeze(1), y_MD * weight_M1, 0.0)
    # Back to the order of pairs: a token's sum has one order, and is rounded once.
    pair_MD = torch.empty_like(y_MD).index_copy_(0, order_M, y_MD)
    return out_TD.add_(pair_MD.unflatten(0, experts_TK.shape).float().sum(1).to(out_TD.dtype))


def packed_mlp_(
    out_TD: torch.Tensor,
    x_TD: torch.Tensor,
    *,
    experts: PackedExperts,
    weights_TK: torch.Tensor,
    experts_TK: torch.Tensor,
    shared: int = 0,
) -> torch.Tensor:
    """As `grouped_mlp_`, with the last `shared` experts taking part for every token, with weight 1."""
    weights_TK, experts_TK = with_shared(weights_TK, experts_TK, experts=experts.experts, shared=shared)
    dense = dense_experts(experts, like=x_TD)
    return grouped_mlp_(
        out_TD,
        x_TD,
        gate_up_EDJ=dense.gate_up_EJD.transpose(1, 2),
        down_EID=dense.down_EDI.transpose(1, 2),
        weights_TK=weights_TK,
        experts_TK=experts_TK,
    )


def _product(x_MA: torch.Tensor, weight_EAB: torch.Tensor, count_E: torch.Tensor) -> torch.Tensor:
    """Rows sorted by expert times their expert's matrix."""
    y_MB: torch.Tensor = operations().npu_grouped_matmul(
        [x_MA],
        [weight_EAB],
        group_list=count_E.long(),
        split_item=3,  # one tensor in, one out
        group_type=0,  # groups of rows
        group_list_type=1,  # counts, not ends
    )[0]
    return y_MB
