"""Plain torch, on any device: rows in rectangles, one gather of whole pages each, torch's fused attention."""

from __future__ import annotations

import torch
import torch.nn.functional as fn

from moe_ops.latent_attention.heads import LatentHeads
from moe_ops.latent_attention.rows import PagedRows, Rectangle
from moe_ops.linear.cpu import unpacked


def latent_decode_(
    out_THV: torch.Tensor,
    q_THQ: torch.Tensor,
    cache_PZC: torch.Tensor,
    rows: PagedRows,
    *,
    heads: LatentHeads,
    scale: float,
) -> None:
    """As the reference, with float activations as they are."""
    latent = heads.latent
    key_HKL = unpacked(heads.key, like=q_THQ).unflatten(0, (heads.heads, -1)).transpose(1, 2)
    kv_b_HUL = unpacked(heads.kv_b, like=q_THQ).unflatten(0, (heads.heads, -1))
    value_HLV = kv_b_HUL[:, heads.nope :].transpose(1, 2)
    absorbed_HTL = torch.bmm(q_THQ[..., : heads.nope].transpose(0, 1), key_HKL)
    q_THC = torch.cat([absorbed_HTL.transpose(0, 1), q_THQ[..., heads.nope :]], dim=-1)
    latent_THL = q_THC.new_empty(*q_THC.shape[:2], latent)
    for rectangle in rows.rectangles(cache_PZC.shape[1]):
        out_BNHL = _attend(q_THC[rectangle.token_BN], cache_PZC, rectangle, scale)[..., :latent]
        latent_THL[rectangle.token_X] = out_BNHL.flatten(0, 1)[rectangle.place_X]
    values_HTV = torch.bmm(latent_THL.transpose(0, 1), value_HLV)
    out_THV.copy_(values_HTV.transpose(0, 1))


def _attend(q_BNHC: torch.Tensor, cache_PZC: torch.Tensor, r: Rectangle, scale: float) -> torch.Tensor:
    """Weighted cache rows. A decode step (N = 1) treats heads as the rows of one product per sequence."""
    batch, new, heads, width = q_BNHC.shape
    context_BSC = cache_PZC.index_select(0, r.pages_BP.flatten()).view(batch, -1, width).to(q_BNHC.dtype)
    # A weight of 0 would not stop what an unwritten place holds from spreading when it is no number.
    unwritten_BS = torch.arange(context_BSC.shape[1], device=r.end_B.device) >= r.end_B.unsqueeze(1)
    context_B1SC = context_BSC.masked_fill_(unwritten_BS.unsqueeze(2), 0.0).unsqueeze(1)
    mask_B1NS = r.mask_BNS.unsqueeze(1).to(q_BNHC.dtype)
    # Values are whole cache rows: the fused kernel wants keys and values of one width.
    if new == 1:
        return fn.scaled_dot_product_attention(
            q_BNHC, context_B1SC, context_B1SC, attn_mask=mask_B1NS, scale=scale
        )
    context_BHSC = context_B1SC.expand(-1, heads, -1, -1)
    out_BHNC = fn.scaled_dot_product_attention(
        q_BNHC.transpose(1, 2), context_BHSC, context_BHSC, attn_mask=mask_B1NS, scale=scale
    )
    return out_BHNC.transpose(1, 2)
