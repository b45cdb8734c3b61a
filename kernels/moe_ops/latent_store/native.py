"""The C++ kernel, or plain torch where it is not compiled."""

from __future__ import annotations

import torch

from moe_ops import native
from moe_ops.latent_store import reference


def latent_store_(
    fresh_TC: torch.Tensor,
    norm_L: torch.Tensor,
    eps: float,
    *,
    turn_TR: torch.Tensor,
    slot_T: torch.Tensor,
    cache_PZC: torch.Tensor,
    q_THQ: torch.Tensor,
) -> None:
    """As the reference, for fp32 projections and an fp32 or bf16 cache. Raises `RuntimeError` for others."""
    if not native.available():
        reference.latent_store_(
            fresh_TC, norm_L, eps, turn_TR=turn_TR, slot_T=slot_T, cache_PZC=cache_PZC, q_THQ=q_THQ
        )
        return
    torch.ops.tokenworks.latent_store_(fresh_TC, norm_L, eps, turn_TR, slot_T, cache_PZC, q_THQ)
