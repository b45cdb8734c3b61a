"""Choosing tokens from logits. A row's choice depends on that row alone, so it is the same in any batch.

Random numbers are a function of the request's seed and the number of the token: nothing is carried from step
to step, and a request that is computed again after losing its pages draws the same tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from inference.engine.step import Draw

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_NUCLEUS_FIRST_TRY = 64  # most nuclei are small, and a full sort of the vocabulary is slow


def choose_tokens(logits_SV: torch.Tensor, draws: Sequence[Draw]) -> list[int | None]:
    """One token per row of `logits_SV`; None where the logits are not finite."""
    if not draws:
        return []
    best_S, token_S = logits_SV.max(-1)
    tokens: list[int | None] = list(token_S.tolist())
    for row, finite in enumerate(best_S.isfinite().tolist()):
        if not finite:
            tokens[row] = None
    sampled = [row for row, draw in enumerate(draws) if draw.temperature > 0 and tokens[row] is not None]
    if sampled:
        rows = torch.tensor(sampled)
        picked = _sample(logits_SV[rows] - best_S[rows, None], [draws[row] for row in sampled])
        for row, token in zip(sampled, picked, strict=True):
            tokens[row] = token
    return tokens


def uniform(seed: int, index: int) -> float:
    """The `index`-th number in [0, 1) of the stream `seed`, with 24 random bits so that fp32 holds it
    exactly.
    """
    return (_mixed(_mixed(seed & _MASK) + (index + 1) * _GOLDEN) >> 40) * 2.0**-24


def _mixed(x: int) -> int:
    """SplitMix64's output function: every input bit reaches every output bit."""
    x &= _MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)


def _sample(logits_SV: torch.Tensor, draws: list[Draw]) -> list[int]:
    """Draw from the tempered distribution of each row, whole or cut to its nucleus."""
    temperature_S1 = torch.tensor([[draw.temperature] for draw in draws])
    probs_SV = (logits_SV / temperature_S1).softmax(-1)
    uniform_S = torch.tensor([uniform(draw.seed, draw.index) for draw in draws])
    cut = [row for row, draw in enumerate(draws) if draw.top_p < 1]
    if not cut:
        return _pick(probs_SV.cumsum(-1), uniform_S).tolist()
    token_S = torch.empty(len(draws), dtype=torch.int64)
    whole = [row for row, draw in enumerate(draws) if draw.top_p >= 1]
    if whole:
        token_S[whole] = _pick(probs_SV[whole].cumsum(-1), uniform_S[whole])
    top_p_S = torch.tensor([draws[row].top_p for row in cut])
    token_S[cut] = _nucleus(probs_SV[cut], uniform_S[cut], top_p_S)
    return token_S.tolist()


def _nucleus(probs_SV: torch.Tensor, uniform_S: torch.Tensor, top_p_S: torch.Tensor) -> torch.Tensor:
    """Draw among the fewest most likely tokens whose probabilities reach `top_p_S`."""
    vocabulary = probs_SV.shape[-1]
    size = min(_NUCLEUS_FIRST_TRY, vocabulary)
    best_SK, token_SK = probs_SV.topk(size, dim=-1)
    token_S, reached_S = _draw_nucleus(best_SK, token_SK, uniform_S, top_p_S)
    wide = (~reached_S).nonzero().squeeze(1)
    if size < vocabulary and len(wide):
        best_SK, token_SK = probs_SV[wide].sort(dim=-1, descending=True, stable=True)
        token_S[wide], _ = _draw_nucleus(best_SK, token_SK, uniform_S[wide], top_p_S[wide])
    return token_S


def _draw_nucleus(
    best_SK: torch.Tensor, token_SK: torch.Tensor, uniform_S: torch.Tensor, top_p_S: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """A token per row, and whether the given candidates held the whole nucleus."""
    total_SK = best_SK.cumsum(-1)
    inside_S1 = (total_SK < top_p_S[:, None]).sum(-1, keepdim=True).clamp_(max=best_SK.shape[1] - 1)
    mass_S1 = total_SK.gather(1, inside_S1)
    place_S = _pick(torch.minimum(total_SK, mass_S1), uniform_S)
    return token_SK.gather(1, place_S[:, None]).squeeze(1), total_SK[:, -1] >= top_p_S


def _pick(total_SV: torch.Tensor, uniform_S: torch.Tensor) -> torch.Tensor:
    """The first place whose running total exceeds the uniform share of the row's mass."""
    mass_S1 = total_SV[:, -1:]
    below_S1 = torch.nextafter(
        mass_S1, torch.zeros_like(mass_S1)
    )  # rounding up to the mass would find no place
    target_S1 = torch.minimum(uniform_S[:, None] * mass_S1, below_S1)
    return torch.searchsorted(total_SV.contiguous(), target_S1, right=True).squeeze(1)
