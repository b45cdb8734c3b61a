"""The definition: all heads share one key per position, the latent and its rotary part side by side."""

from __future__ import annotations

import torch


def latent_attention(
    q_BNHC: torch.Tensor,
    cache_PZC: torch.Tensor,
    pages_BP: torch.Tensor,
    mask_BNS: torch.Tensor,
    *,
    latent: int,
    scale: float,
) -> torch.Tensor:
    """Attention-weighted latents of shape (B, N, H, L), where L is `latent`.

    `pages_BP` names each sequence's pages in order, padded with any valid page; `mask_BNS` (S = pages × page
    size) is 0 where a new token may look and −inf elsewhere, with at least one 0 in each row. Softmax in
    fp32.
    """
    context_BSC = cache_PZC[pages_BP].flatten(1, 2)
    scores_BHNS = torch.einsum("bnhc,bsc->bhns", q_BNHC.float(), context_BSC.float()) * scale
    weights_BHNS = (scores_BHNS + mask_BNS.float().unsqueeze(1)).softmax(-1)
    out_BNHL = torch.einsum("bhns,bsl->bnhl", weights_BHNS, context_BSC[..., :latent].float())
    return out_BNHL.to(q_BNHC.dtype)


def expanded_attention(
    q_BNHQ: torch.Tensor,
    context_BSC: torch.Tensor,
    kv_b_HUL: torch.Tensor,
    mask_BNS: torch.Tensor,
    *,
    value: int,
    scale: float,
) -> torch.Tensor:
    """The same attention as published, before absorption: keys and values of every head are computed from the
    latent.

    `kv_b_HUL` maps a latent to a head's position-free key and its `value`-wide value (U = their widths
    together). Returns values of shape (B, N, H, `value`).
    """
    latent = kv_b_HUL.shape[2]
    both_BSHU = torch.einsum("bsl,hul->bshu", context_BSC[..., :latent], kv_b_HUL)
    key_BSHK, value_BSHV = both_BSHU[..., :-value], both_BSHU[..., -value:]
    rotary_BSHR = context_BSC[:, :, None, latent:].expand(-1, -1, kv_b_HUL.shape[0], -1)
    keys_BSHQ = torch.cat([key_BSHK, rotary_BSHR], dim=-1)
    scores_BHNS = torch.einsum("bnhq,bshq->bhns", q_BNHQ, keys_BSHQ) * scale + mask_BNS.unsqueeze(1)
    return torch.einsum("bhns,bshv->bnhv", scores_BHNS.softmax(-1), value_BSHV)
