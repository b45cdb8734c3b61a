"""Products over tokens sorted by expert: each touched expert is read once per step, the others not at all."""

from __future__ import annotations

import torch
import torch.nn.functional as fn

_ALIGNMENT_BYTES = 16  # what torch's grouped product demands of row strides


def grouped_mlp_(
    out_TD: torch.Tensor,
    x_TD: torch.Tensor,
    *,
    gate_up_EDJ: torch.Tensor,
    down_EID: torch.Tensor,
    weights_TK: torch.Tensor,
    experts_TK: torch.Tensor,
) -> torch.Tensor:
    """As the reference."""
    width = down_EID.shape[1]
    expert_M = experts_TK.flatten()
    order_M = expert_M.argsort(stable=True)  # stable: a token's sum has the same order in any batch
    token_M = order_M.div(experts_TK.shape[1], rounding_mode="floor")
    count_E = torch.bincount(expert_M, minlength=len(down_EID))
    both_MJ = _product(x_TD.index_select(0, token_M), gate_up_EDJ, count_E)
    act_MI = fn.silu(both_MJ[:, :width]).mul_(both_MJ[:, width:])
    y_MD = _product(act_MI, down_EID, count_E)
    weight_M1 = weights_TK.flatten().index_select(0, order_M).unsqueeze(1)
    return out_TD.index_add_(0, token_M, (y_MD * weight_M1).to(out_TD.dtype))


def _product(x_MA: torch.Tensor, weight_EAB: torch.Tensor, count_E: torch.Tensor) -> torch.Tensor:
    """Rows of `x_MA`, sorted by expert, times their expert's matrix; `count_E` rows belong to each."""
    experts, inner, outer = weight_EAB.shape
    aligned = not (
        inner * x_MA.element_size() % _ALIGNMENT_BYTES or outer * x_MA.element_size() % _ALIGNMENT_BYTES
    )
    if aligned and len(x_MA) >= experts:
        return fn.grouped_mm(x_MA, weight_EAB, offs=count_E.cumsum(0, dtype=torch.int32))
    # Few rows: torch's grouped product spends its time on the experts that have none.
    y_MB = x_MA.new_empty(len(x_MA), outer)
    first = 0
    for expert, count in enumerate(count_E.tolist()):
        if count:
            rows = slice(first, first + count)
            torch.mm(x_MA[rows], weight_EAB[expert], out=y_MB[rows])
            first += count
    return y_MB
