"""The definition: one expert after the other."""

from __future__ import annotations

import torch
import torch.nn.functional as fn


def grouped_mlp_(
    out_TD: torch.Tensor,
    x_TD: torch.Tensor,
    *,
    gate_up_EDJ: torch.Tensor,
    down_EID: torch.Tensor,
    weights_TK: torch.Tensor,
    experts_TK: torch.Tensor,
) -> torch.Tensor:
    """Add `Σ weight · down(silu(gate x) · up x)` over each token's experts to `out_TD`, in place, and return
    it.

    `gate_up_EDJ` has the gate in its first I columns and the up projection in the others (J = 2 I).
    """
    for expert in sorted(set(experts_TK.flatten().tolist())):
        token, slot = torch.where(experts_TK == expert)
        gate, up = (x_TD[token] @ gate_up_EDJ[expert]).chunk(2, dim=-1)
        y = (fn.silu(gate) * up) @ down_EID[expert] * weights_TK[token, slot, None]
        out_TD.index_add_(0, token, y.to(out_TD.dtype))
    return out_TD
