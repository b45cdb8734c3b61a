"""Plain torch for many new tokens: torch's fused attention, piece by piece of the context.

Memory does not grow with the context. Each piece gives a result and the logarithm of its sum of weights, by
which the results are put together (as in FlashAttention, arXiv:2205.14135).
"""

from __future__ import annotations

import torch
import torch.nn.functional as fn

from moe_ops.latent_attention.heads import LatentHeads
from moe_ops.linear.cpu import linear

_PIECE = 1024  # context positions expanded at a time


def latent_expand_(
    out_THV: torch.Tensor,
    q_THQ: torch.Tensor,
    cache_PZC: torch.Tensor,
    pages_P: torch.Tensor,
    start: int,
    *,
    heads: LatentHeads,
    scale: float,
) -> None:
    """As the reference, with fp32 activations."""
    found: list[tuple[torch.Tensor, torch.Tensor]] = []
    rows_XC = cache_PZC.flatten(0, 1)
    for first, end in _pieces(start, len(q_THQ)):
        context_SC = rows_XC.index_select(0, _places(pages_P, first, end, cache_PZC.shape[1])).float()
        both_SHU = linear(context_SC[:, : heads.latent], heads.kv_b).unflatten(1, (heads.heads, -1))
        after_THQ = q_THQ[max(0, first - start) :]
        rotary_SR = context_SC[:, heads.latent :]
        found.append(_piece(after_THQ, both_SHU, rotary_SR, causal=first >= start, scale=scale))
    out_THV.copy_(_joined(found, len(q_THQ)))


def _piece(
    q_THQ: torch.Tensor, both_SHU: torch.Tensor, rotary_SR: torch.Tensor, *, causal: bool, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Values (T, H, V) and logarithms (T, H) of sums of weights; `causal`: query t sees positions 0 … t."""
    nope = q_THQ.shape[2] - rotary_SR.shape[1]
    value = both_SHU.shape[2] - nope
    rotary_SHR = rotary_SR.unsqueeze(1).expand(-1, both_SHU.shape[1], -1)
    key_SHQ = torch.cat([both_SHU[..., :nope], rotary_SHR], dim=-1)
    width = max(q_THQ.shape[2], value)  # torch's kernel wants one width
    parts = (
        fn.pad(part, (0, width - part.shape[2])).transpose(0, 1).unsqueeze(0)
        for part in (q_THQ, key_SHQ, both_SHU[..., nope:])
    )
    out_1HTQ, total_1HT = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        *parts, 0.0, causal, scale=scale
    )
    return out_1HTQ[0].transpose(0, 1)[..., :value], total_1HT[0].t()


def _pieces(start: int, count: int) -> list[tuple[int, int]]:
    """Runs of context positions. Old positions are seen by all new tokens; of the new ones each piece is
    seen by its own tokens causally and by all after it.
    """
    old = [(first, min(first + _PIECE, start)) for first in range(0, start, _PIECE)]
    end = start + count
    return old + [(first, min(first + _PIECE, end)) for first in range(start, end, _PIECE)]


def _places(pages_P: torch.Tensor, first: int, end: int, page_size: int) -> torch.Tensor:
    position_S = torch.arange(first, end)
    page_S = pages_P.long()[position_S.div(page_size, rounding_mode="floor")]
    return page_S * page_size + position_S % page_size


def _joined(found: list[tuple[torch.Tensor, torch.Tensor]], tokens: int) -> torch.Tensor:
    """The results of all pieces in one; a piece of new tokens has none for the tokens before it."""
    out_THV, total_TH = found[0]
    for piece_XHV, sum_XH in found[1:]:
        tail = slice(tokens - len(sum_XH), None)
        both_XH = torch.logaddexp(total_TH[tail], sum_XH)
        keep_XH1 = (total_TH[tail] - both_XH).exp().unsqueeze(2)
        take_XH1 = (sum_XH - both_XH).exp().unsqueeze(2)
        joined_XHV = out_THV[tail] * keep_XH1 + piece_XHV * take_XH1
        out_THV = torch.cat([out_THV[: tail.start], joined_XHV])
        total_TH = torch.cat([total_TH[: tail.start], both_XH])
    return out_THV
