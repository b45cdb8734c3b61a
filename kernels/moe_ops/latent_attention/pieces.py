"""Attention of many new tokens, piece by piece of the context, on any device.

Memory does not grow with the context. Each piece gives a result and the logarithm of its sum of weights, by
which the results are put together (as in FlashAttention, arXiv:2205.14135).
"""

from __future__ import annotations

from typing import Protocol

import torch

from moe_ops.latent_attention.heads import LatentHeads
from moe_ops.linear.cpu import linear


class Attend(Protocol):
    """Attention over one piece: values (T, H, V) and logarithms (T, H), fp32, of the sums of weights.

    `both_SHU` are each position's position-free keys and, behind them, values of every head; `rotary_SR` the
    rest of a key, which all heads share. `causal`: query t sees positions 0 … t, else all.
    """

    def __call__(
        self,
        q_THQ: torch.Tensor,
        both_SHU: torch.Tensor,
        rotary_SR: torch.Tensor,
        *,
        causal: bool,
        scale: float,
    ) -> tuple[torch.Tensor, torch.Tensor]: ...


def expand_(
    out_THV: torch.Tensor,
    q_THQ: torch.Tensor,
    cache_PZC: torch.Tensor,
    pages_P: torch.Tensor,
    start: int,
    *,
    heads: LatentHeads,
    scale: float,
    attend: Attend,
    piece: int,
) -> None:
    """As the reference, with float activations as they are, `piece` context positions at a time."""
    found: list[tuple[torch.Tensor, torch.Tensor]] = []
    rows_XC = cache_PZC.flatten(0, 1)
    for first, end in _pieces(start, len(q_THQ), piece):
        place_S = _places(pages_P, first, end, cache_PZC.shape[1])
        context_SC = rows_XC.index_select(0, place_S).to(q_THQ.dtype)
        both_SHU = linear(context_SC[:, : heads.latent], heads.kv_b).unflatten(1, (heads.heads, -1))
        after_THQ = q_THQ[max(0, first - start) :]
        rotary_SR = context_SC[:, heads.latent :]
        found.append(attend(after_THQ, both_SHU, rotary_SR, causal=first >= start, scale=scale))
    out_THV.copy_(_joined(found, len(q_THQ)))


def attend_plain(
    q_THQ: torch.Tensor, both_SHU: torch.Tensor, rotary_SR: torch.Tensor, *, causal: bool, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """`Attend` of products and sums that every device has; scores and weights are fp32."""
    nope = q_THQ.shape[2] - rotary_SR.shape[1]
    wide_THQ = q_THQ.float()
    scores_HTS = torch.einsum("thk,shk->hts", wide_THQ[..., :nope], both_SHU[..., :nope].float())
    scores_HTS += torch.einsum("thr,sr->hts", wide_THQ[..., nope:], rotary_SR.float())
    scores_HTS *= scale
    if causal:
        hidden_TS = torch.ones(scores_HTS.shape[1:], dtype=torch.bool, device=q_THQ.device).triu(1)
        scores_HTS.masked_fill_(hidden_TS, float("-inf"))
    total_HT = scores_HTS.logsumexp(-1)
    weights_HTS = scores_HTS.sub_(total_HT.unsqueeze(2)).exp_().to(q_THQ.dtype)
    return torch.einsum("hts,shv->thv", weights_HTS, both_SHU[..., nope:]), total_HT.t()


def _pieces(start: int, count: int, piece: int) -> list[tuple[int, int]]:
    """Runs of context positions. Old positions are seen by all new tokens; of the new ones each piece is
    seen by its own tokens causally and by all after it.
    """
    old = [(first, min(first + piece, start)) for first in range(0, start, piece)]
    end = start + count
    return old + [(first, min(first + piece, end)) for first in range(start, end, piece)]


def _places(pages_P: torch.Tensor, first: int, end: int, page_size: int) -> torch.Tensor:
    position_S = torch.arange(first, end, device=pages_P.device)
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
