"""The definition, which is also the form in plain torch."""

from __future__ import annotations

import torch

from moe_ops.rms_norm import reference
from moe_ops.rope import rotate_pairs


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
    """Write normed latents and rotated keys to the slots of `cache_PZC`, rounded to its type, and rotate the
    last R numbers of every query in place.

    `fresh_TC` is the projection's result; `turn_TR` are each position's rotations as complex numbers.
    """
    latent = len(norm_L)
    rotary = fresh_TC.shape[1] - latent
    latent_TL = reference.rms_norm(fresh_TC[:, :latent], norm_L, eps)
    rotary_TR = rotate_pairs(fresh_TC[:, latent:], turn_TR)
    row_TC = torch.cat([latent_TL, rotary_TR], dim=1).to(cache_PZC.dtype)
    cache_PZC.flatten(0, 1).index_copy_(0, slot_T, row_TC)
    q_THQ[..., -rotary:] = rotate_pairs(q_THQ[..., -rotary:], turn_TR.unsqueeze(1))
