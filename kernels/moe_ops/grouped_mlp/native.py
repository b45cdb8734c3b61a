"""The C++ kernel, or plain torch where it is not compiled."""

from __future__ import annotations

import torch

from moe_ops import native
from moe_ops.grouped_mlp.packed import packed_mlp_torch_
from moe_ops.grouped_mlp.packing import PackedExperts


def packed_mlp_(
    out_TD: torch.Tensor,
    x_TD: torch.Tensor,
    *,
    experts: PackedExperts,
    weights_TK: torch.Tensor,
    experts_TK: torch.Tensor,
    shared: int = 0,
) -> torch.Tensor:
    """Add `Σ weight · down(silu(gate x) · up x)` over each token's experts to `out_TD` and return it.

    fp32 activations and weights_TK, int64 experts_TK (K may be 0). The last `shared` experts take part for
    every token, with weight 1. Each expert that is used is read once. A token's result does not depend on
    the others. Raises `RuntimeError` for shapes or types that do not fit.
    """
    if not native.available():
        return packed_mlp_torch_(
            out_TD, x_TD, experts=experts, weights_TK=weights_TK, experts_TK=experts_TK, shared=shared
        )
    gate_up, down = experts.gate_up, experts.down
    torch.ops.tokenworks.grouped_mlp_(
        out_TD,
        x_TD,
        gate_up.data,
        gate_up.scales,
        down.data,
        down.scales,
        weights_TK,
        experts_TK,
        gate_up.code,
        experts.experts,
        experts.width,
        shared,
    )
    return out_TD
