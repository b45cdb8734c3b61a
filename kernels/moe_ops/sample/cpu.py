"""Plain torch, on any device, without sorting whole rows where cuts leave few tokens."""

from __future__ import annotations

from typing import NamedTuple

import torch

from moe_ops.sample.reference import Changes, changed

# Most cuts leave few tokens, and sorting a vocabulary is slow: so many candidates are looked at, in turn,
# until a row's cuts leave nothing beyond them. How many depends on that row alone.
_TRIES = (64, 1024, 8192)


class _Limits(NamedTuple):
    """Columns of `limits_S5`."""

    temperature_S: torch.Tensor
    top_p_S: torch.Tensor
    min_p_S: torch.Tensor
    top_k_S: torch.Tensor
    uniform_S: torch.Tensor

    def of(self, rows: torch.Tensor) -> _Limits:
        return _Limits(*(one_S[rows] for one_S in self))


def choose(logits_SV: torch.Tensor, limits_S5: torch.Tensor, changes: Changes | None = None) -> torch.Tensor:
    """As the reference; which of equals at the border of a cut stays is torch's choice."""
    best_S, token_S = logits_SV.max(-1)
    finite_S = best_S.isfinite()
    if changes is not None:
        logits_SV = changed(logits_SV, changes)
        best_S, token_S = logits_SV.max(-1)
        finite_S &= best_S.isfinite()
    limits = _Limits(*limits_S5.to(logits_SV.device).unbind(1))
    sampled_S = (limits.temperature_S > 0) & finite_S
    if sampled_S.all():
        token_S = _draw(logits_SV - best_S[:, None], limits)
    elif sampled_S.any():
        token_S[sampled_S] = _draw(logits_SV[sampled_S] - best_S[sampled_S, None], limits.of(sampled_S))
    return token_S.masked_fill(~finite_S, -1).cpu()


def token_logprobs(
    logits_SV: torch.Tensor, token_S: torch.Tensor, best: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """As the reference; the order of equals depends on `best`, not on other rows."""
    token_S = token_S.to(logits_SV.device)
    total_S1 = logits_SV.logsumexp(-1, keepdim=True)
    best_SK, token_SK = logits_SV.topk(best, dim=-1)
    return (logits_SV.gather(1, token_S[:, None]) - total_S1).squeeze(1), token_SK, best_SK - total_S1


def _draw(logits_SV: torch.Tensor, limits: _Limits) -> torch.Tensor:
    """Token ids (S,). The best logit of each row is 0; every temperature is above 0."""
    probs_SV = (logits_SV / limits.temperature_S[:, None]).softmax(-1)
    cut_S = (limits.top_k_S > 0) | (limits.top_p_S < 1) | (limits.min_p_S > 0)
    if not cut_S.any():
        return _pick(probs_SV.cumsum(-1), limits.uniform_S)
    if cut_S.all():
        return _draw_cut(probs_SV, limits)
    token_S = torch.empty(len(probs_SV), dtype=torch.int64, device=probs_SV.device)
    token_S[~cut_S] = _pick(probs_SV[~cut_S].cumsum(-1), limits.uniform_S[~cut_S])
    token_S[cut_S] = _draw_cut(probs_SV[cut_S], limits.of(cut_S))
    return token_S


def _draw_cut(probs_SV: torch.Tensor, limits: _Limits) -> torch.Tensor:
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


def _inside(best_SK: torch.Tensor, limits: _Limits) -> torch.Tensor:
    """Whether the rows' cuts leave nothing beyond the given candidates."""
    reached_S = (best_SK.sum(-1) >= limits.top_p_S) | (best_SK[:, -1] < limits.min_p_S * best_SK[:, 0])
    return torch.where(limits.top_k_S > 0, limits.top_k_S <= best_SK.shape[1], reached_S)


def _draw_sorted(best_SK: torch.Tensor, token_SK: torch.Tensor, limits: _Limits) -> torch.Tensor:
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
