"""Norm and rotation by Ascend's own operations. Unmeasured: never run on an NPU.

`npu_kv_rmsnorm_rope_cache` would do all at once, but into two caches, one of latents and one of rotary keys.
"""

from __future__ import annotations

import torch

from moe_ops.accelerator.npu import operations
from moe_ops.rms_norm.npu import rms_norm


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
    """As the reference."""
    latent = len(norm_L)
    rotary = fresh_TC.shape[1] - latent
    latent_TL = rms_norm(fresh_TC[:, :latent], norm_L, eps)
    rotary_TR = _rotated(fresh_TC[:, None, latent:], turn_TR)[:, 0]
    row_TC = torch.cat([latent_TL, rotary_TR], dim=1).to(cache_PZC.dtype)
    cache_PZC.flatten(0, 1).index_copy_(0, slot_T, row_TC)
    q_THQ[..., -rotary:] = _rotated(q_THQ[..., -rotary:], turn_TR)


def _rotated(x_THR: torch.Tensor, turn_TR: torch.Tensor) -> torch.Tensor:
    """Interleaved pairs, turned; the operation takes (batch, heads, tokens, width) with each angle twice."""
    cos, sin = (
        part.repeat_interleave(2, dim=-1).to(x_THR.dtype)[None, None] for part in (turn_TR.real, turn_TR.imag)
    )
    x_1HTR = x_THR.transpose(0, 1).unsqueeze(0).contiguous()
    turned: torch.Tensor = operations().npu_rotary_mul(x_1HTR, cos, sin, rotary_mode="interleave")
    return turned[0].transpose(0, 1)
