"""Two grouped products over tokens sorted by expert: each touched expert is read once per step."""

from __future__ import annotations

import torch
import torch.nn.functional as fn

from moe_ops.grouped_mlp import reference

_ALIGNMENT_BYTES = 16  # what the grouped product demands of row strides


def grouped_mlp_(
    out_TD: torch.Tensor,
    x_TD: torch.Tensor,
    *,
    gate_up_EDJ: torch.Tensor,
    down_EID: torch.Tensor,
    weights_TK: torch.Tensor,
    experts_TK: torch.Tensor,
) -> torch.Tensor:
    """As the reference. Widths that the grouped product cannot take go through the reference."""
    experts, hidden, _ = gate_up_EDJ.shape
    width = down_EID.shape[1]
    if hidden * x_TD.element_size() % _ALIGNMENT_BYTES or width * x_TD.element_size() % _ALIGNMENT_BYTES:
        return reference.grouped_mlp_(
            out_TD,
            x_TD,
            gate_up_EDJ=gate_up_EDJ,
            down_EID=down_EID,
            weights_TK=weights_TK,
            experts_TK=experts_TK,
        )
    expert_M = experts_TK.flatten()
    order_M = expert_M.argsort(stable=True)  # stable: a token's sum has the same order in any batch
    token_M = order_M.div(experts_TK.shape[1], rounding_mode="floor")
    ends_E = torch.bincount(expert_M, minlength=experts).cumsum(0, dtype=torch.int32)
    both_MJ = fn.grouped_mm(x_TD.index_select(0, token_M), gate_up_EDJ, offs=ends_E)
    act_MI = fn.silu(both_MJ[:, :width]).mul_(both_MJ[:, width:])
    y_MD = fn.grouped_mm(act_MI, down_EID, offs=ends_E)
    weight_M1 = weights_TK.flatten().index_select(0, order_M).unsqueeze(1)
    return out_TD.index_add_(0, token_M, (y_MD * weight_M1).to(out_TD.dtype))
