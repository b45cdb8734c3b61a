"""Attention of a row with many new tokens: keys and values of all heads are made from the cached latents.

The context is taken in pieces, so that memory does not grow with it. Each piece gives a result and the
logarithm of its sum of weights, by which the results are put together (as in FlashAttention,
arXiv:2205.14135). New tokens look at each other below the diagonal only.
"""

from __future__ import annotations

import torch

from inference.layers.batch import LongRow
from inference.layers.forms import Forms
from moe_ops.linear import PackedMatrix

_PIECE = 1024  # context positions expanded at a time


def expanded_attention(
    q_THQ: torch.Tensor,
    cache_PZC: torch.Tensor,
    row: LongRow,
    *,
    kv_b: PackedMatrix,
    latent: int,
    scale: float,
    forms: Forms,
) -> torch.Tensor:
    """Values of shape (T, H, V) that the row's queries attend to.

    `kv_b` takes latents (L) to position-free keys and values of all heads. The new tokens' latents are in the
    cache already.
    """
    found: list[tuple[torch.Tensor, torch.Tensor]] = []
    rows_XC = cache_PZC.flatten(0, 1)
    for first, end in _pieces(row):
        context_SC = rows_XC.index_select(0, _places(row.pages_P, first, end, cache_PZC.shape[1])).float()
        both_SHU = forms.linear(context_SC[:, :latent], kv_b).unflatten(1, (q_THQ.shape[1], -1))
        after_THQ = q_THQ[max(0, first - row.start) :]
        found.append(
            forms.latent_expand(
                after_THQ, both_SHU, context_SC[:, latent:], causal=first >= row.start, scale=scale
            )
        )
    return _joined(found, len(q_THQ))


def _pieces(row: LongRow) -> list[tuple[int, int]]:
    """Runs of context positions. Old positions are seen by all new tokens; of the new ones each piece is
    seen by its own tokens causally and by all after it.
    """
    old = [(first, min(first + _PIECE, row.start)) for first in range(0, row.start, _PIECE)]
    end = row.start + row.count
    return old + [(first, min(first + _PIECE, end)) for first in range(row.start, end, _PIECE)]


def _places(pages_P: torch.Tensor, first: int, end: int, page_size: int) -> torch.Tensor:
    position_S = torch.arange(first, end)
    page_S = pages_P[position_S.div(page_size, rounding_mode="floor")]
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
