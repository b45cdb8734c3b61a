"""Attention of a row with many new tokens: keys and values of all heads are made from the cached latents.

The context is taken in pieces, so that memory does not grow with it. Each piece gives a result and the
logarithm of its sum of weights, by which the results are put together (as in FlashAttention,
arXiv:2205.14135). New tokens look at each other below the diagonal only.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as fn

from inference.layers.batch import LongRow

_PIECE = 1024  # context positions expanded at a time


def expanded_attention(
    q_THQ: torch.Tensor,
    cache_PZC: torch.Tensor,
    row: LongRow,
    expand: Callable[[torch.Tensor], torch.Tensor],
    *,
    nope: int,
    latent: int,
    scale: float,
) -> torch.Tensor:
    """Values of shape (T, H, V) that the row's queries attend to.

    `expand` takes latents (S, L) to `nope`-wide keys and V-wide values of all heads (S, H, K + V). The new
    tokens' latents are in the cache already.
    """
    found: list[tuple[torch.Tensor, torch.Tensor]] = []
    rows_XC = cache_PZC.flatten(0, 1)
    for first, end in _pieces(row):
        context_SC = rows_XC.index_select(0, _places(row.pages_P, first, end, cache_PZC.shape[1])).float()
        both_SHU = expand(context_SC[:, :latent])
        rotary_S1R = context_SC[:, None, latent:]
        key_SHQ = torch.cat([both_SHU[..., :nope], rotary_S1R.expand(-1, both_SHU.shape[1], -1)], dim=-1)
        query_THQ = q_THQ[max(0, first - row.start) :]
        found.append(_attend(query_THQ, key_SHQ, both_SHU[..., nope:], scale, causal=first >= row.start))
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


def _attend(
    q_THQ: torch.Tensor, key_SHQ: torch.Tensor, value_SHV: torch.Tensor, scale: float, *, causal: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Values (T, H, V) and logarithms of the sums of weights (T, H) of one piece.

    A causal piece starts at the first query's own position; queries after its end see all of it, which the
    kernel does by itself: it counts both from 0.
    """
    value = value_SHV.shape[2]
    width = max(key_SHQ.shape[2], value)  # torch's kernel wants one width
    parts = (fn.pad(part, (0, width - part.shape[2])) for part in (q_THQ, key_SHQ, value_SHV))
    out_1HTQ, total_1HT = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        *(part.transpose(0, 1).unsqueeze(0) for part in parts), 0.0, causal, scale=scale
    )
    return out_1HTQ[0].transpose(0, 1)[..., :value], total_1HT[0].t()


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
