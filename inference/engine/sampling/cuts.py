"""Drawing from a tempered distribution, whole or cut.

Cuts follow one another: `top_k` keeps the likeliest k; `top_p` the fewest of those that reach its share of
their mass; `min_p` those at least that fraction as likely as the best.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from inference.engine.sampling.noise import uniform
from inference.engine.step import Draw

# Most cuts leave few tokens, and sorting a vocabulary is slow: so many candidates are looked at, in turn,
# until a row's cuts leave nothing beyond them. How many depends on that row alone.
_TRIES = (64, 1024, 8192)


class _Cuts(NamedTuple):
    """Per row: the share drawn and the limits; `top_k` 0 keeps all."""

    uniform_S: torch.Tensor
    top_k_S: torch.Tensor
    top_p_S: torch.Tensor
    min_p_S: torch.Tensor

    def of(self, rows: torch.Tensor) -> _Cuts:
        return _Cuts(*(one_S[rows] for one_S in self))


def draw_tokens(logits_SV: torch.Tensor, draws: Sequence[Draw]) -> torch.Tensor:
    """Token ids (S,). The best logit of each row is 0; every temperature is above 0."""
    device = logits_SV.device
    params = [draw.params for draw in draws]
    temperature_S1 = torch.tensor([[one.temperature] for one in params], device=device)
    probs_SV = (logits_SV / temperature_S1).softmax(-1)
    uniform_S = torch.tensor([uniform(draw.seed, draw.index) for draw in draws], device=device)
    cut = [one.top_k > 0 or one.top_p < 1 or one.min_p > 0 for one in params]
    if not any(cut):
        return _pick(probs_SV.cumsum(-1), uniform_S)
    limits = _Cuts(
        uniform_S,
        torch.tensor([one.top_k for one in params], device=device),
        torch.tensor([one.top_p for one in params], device=device),
        torch.tensor([one.min_p for one in params], device=device),
    )
    if all(cut):
        return _draw_cut(probs_SV, limits)
    cut_S = torch.tensor(cut, device=device)
    token_S = torch.empty(len(draws), dtype=torch.int64, device=device)
    token_S[~cut_S] = _pick(probs_SV[~cut_S].cumsum(-1), uniform_S[~cut_S])
    token_S[cut_S] = _draw_cut(probs_SV[cut_S], limits.of(cut_S))
    return token_S


def _draw_cut(probs_SV: torch.Tensor, limits: _Cuts) -> torch.Tensor:
    """Look at the few likeliest tokens; again, at more, only for rows whose cuts reach beyond them."""
    vocabulary = probs_SV.shape[-1]
    token_S = torch.empty(len(probs_SV), dtype=torch.int64, device=probs_SV.device)
    rows = torch.arange(len(probs_SV), device=probs_SV.device)
    for size in (*(size for size in _TRIES if size < vocabulary), vocabulary):
        if size < vocabulary:
            best_SK, token_SK = probs_SV.topk(size, dim=-1)
        else:
            best_SK, token_SK = probs_SV.sort(dim=-1, descending=True, stable=True)
        token_S[rows] = _draw_sorted(best_SK, token_SK, limits)
        wide = (~_inside(best_SK, limits)).nonzero().squeeze(1)
        if not len(wide):
            break
        rows, probs_SV, limits = rows[wide], probs_SV[wide], limits.of(wide)
    return token_S


def _inside(best_SK: torch.Tensor, limits: _Cuts) -> torch.Tensor:
    """Whether the rows' cuts leave nothing beyond the given candidates."""
    reached_S = (best_SK.sum(-1) >= limits.top_p_S) | (best_SK[:, -1] < limits.min_p_S * best_SK[:, 0])
    top_k_S = limits.top_k_S
    return torch.where(top_k_S > 0, top_k_S <= best_SK.shape[1], reached_S)


def _draw_sorted(best_SK: torch.Tensor, token_SK: torch.Tensor, limits: _Cuts) -> torch.Tensor:
    """A token per row among candidates in order of falling probability."""
    places = best_SK.shape[1]
    place_K = torch.arange(places, device=best_SK.device)
    top_k_S1 = limits.top_k_S[:, None]
    kept_SK = torch.where((top_k_S1 == 0) | (place_K < top_k_S1), best_SK, 0.0)
    total_SK = kept_SK.cumsum(-1)
    share_S1 = limits.top_p_S[:, None] * torch.where(top_k_S1 > 0, total_SK[:, -1:], 1.0)
    by_mass_S1 = (total_SK < share_S1).sum(-1, keepdim=True)
    by_ratio_S1 = (best_SK >= limits.min_p_S[:, None] * best_SK[:, :1]).sum(-1, keepdim=True) - 1
    last_S1 = torch.minimum(by_mass_S1, by_ratio_S1).clamp_(max=places - 1)
    mass_S1 = total_SK.gather(1, last_S1)
    place_S = _pick(torch.minimum(total_SK, mass_S1), limits.uniform_S)
    return token_SK.gather(1, place_S[:, None]).squeeze(1)


def _pick(total_SV: torch.Tensor, uniform_S: torch.Tensor) -> torch.Tensor:
    """The first place whose running total exceeds the uniform share of the row's mass."""
    mass_S1 = total_SV[:, -1:]
    # rounding up to the mass would find no place
    below_S1 = torch.nextafter(mass_S1, torch.zeros_like(mass_S1))
    target_S1 = torch.minimum(uniform_S[:, None] * mass_S1, below_S1)
    return torch.searchsorted(total_SV.contiguous(), target_S1, right=True).squeeze(1)
