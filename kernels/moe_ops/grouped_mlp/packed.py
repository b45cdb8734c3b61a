"""The operation on packed experts: its definition and its form in plain torch."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as fn

from moe_ops.grouped_mlp.cpu import grouped_mlp_
from moe_ops.grouped_mlp.packing import PackedExperts, unpack_experts
from moe_ops.linear.reference import round_activations

_UNPACKED: WeakKeyDictionary[PackedExperts, tuple[torch.Tensor, torch.Tensor]] = WeakKeyDictionary()


def packed_mlp_reference_(
    out_TD: torch.Tensor,
    x_TD: torch.Tensor,
    *,
    experts: PackedExperts,
    weights_TK: torch.Tensor,
    experts_TK: torch.Tensor,
    shared: int = 0,
) -> torch.Tensor:
    """Add `Σ weight · down(silu(gate x) · up x)` over each token's experts to `out_TD` and return it.

    The last `shared` experts take part for every token, with weight 1. Activations are rounded before both
    products where the experts say so.
    """
    gate_up_EJD, down_EDI = unpack_experts(experts)
    rounds = experts.format in ("int8", "int4") and experts.gate_up.activations == "int8"
    in_TD = round_activations(x_TD) if rounds else x_TD
    weights_TK, experts_TK = with_shared(weights_TK, experts_TK, experts=experts.experts, shared=shared)
    for expert in sorted(set(experts_TK.flatten().tolist())):
        token, slot = torch.where(experts_TK == expert)
        gate, up = (in_TD[token] @ gate_up_EJD[expert].t()).chunk(2, dim=-1)
        act = fn.silu(gate) * up
        y = (round_activations(act) if rounds else act) @ down_EDI[expert].t()
        out_TD.index_add_(0, token, y * weights_TK[token, slot, None])
    return out_TD


def packed_mlp_torch_(
    out_TD: torch.Tensor,
    x_TD: torch.Tensor,
    *,
    experts: PackedExperts,
    weights_TK: torch.Tensor,
    experts_TK: torch.Tensor,
    shared: int = 0,
) -> torch.Tensor:
    """As the definition, with fp32 activations, from weights that are unpacked at first use."""
    weights_TK, experts_TK = with_shared(weights_TK, experts_TK, experts=experts.experts, shared=shared)
    gate_up_EDJ, down_EID = _unpacked(experts)
    return grouped_mlp_(
        out_TD,
        x_TD,
        gate_up_EDJ=gate_up_EDJ,
        down_EID=down_EID,
        weights_TK=weights_TK,
        experts_TK=experts_TK,
    )


def with_shared(
    weights_TK: torch.Tensor, experts_TK: torch.Tensor, *, experts: int, shared: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The choice of each token with the last `shared` of `experts` added at weight 1."""
    if shared == 0:
        return weights_TK, experts_TK
    shared_S = torch.arange(experts - shared, experts, dtype=experts_TK.dtype, device=experts_TK.device)
    all_TK = torch.cat([experts_TK, shared_S.expand(len(experts_TK), shared)], dim=1)
    return fn.pad(weights_TK, (0, shared), value=1.0), all_TK


def _unpacked(experts: PackedExperts) -> tuple[torch.Tensor, torch.Tensor]:
    both = _UNPACKED.get(experts)
    if both is None:
        gate_up_EJD, down_EDI = unpack_experts(experts)
        both = gate_up_EJD.transpose(1, 2).contiguous(), down_EDI.transpose(1, 2).contiguous()
        _UNPACKED[experts] = both
    return both
