"""One token per row of logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from inference.engine.sampling.adjust import adjusted
from inference.engine.sampling.cuts import draw_tokens
from inference.engine.sampling.logprobs import token_logprobs
from inference.engine.step import Draw


@dataclass(frozen=True, slots=True)
class Choice:
    """The chosen token; where asked for, its natural log probability and the best tokens with theirs."""

    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


def choose_tokens(logits_SV: torch.Tensor, draws: Sequence[Draw]) -> list[Choice | None]:
    """A choice per row of `logits_SV` (fp32, left unchanged); None where the logits are not finite."""
    if not draws:
        return []
    best_S, token_S = logits_SV.max(-1)
    finite = best_S.isfinite().tolist()
    changed_SV = adjusted(logits_SV, draws)
    if changed_SV is not logits_SV:
        best_S, token_S = changed_SV.max(-1)
    sampled = [row for row, draw in enumerate(draws) if draw.params.temperature > 0 and finite[row]]
    if sampled:
        whole = len(sampled) == len(draws)
        rows = slice(None) if whole else torch.tensor(sampled, device=logits_SV.device)
        wanted = draws if whole else [draws[row] for row in sampled]
        token_S[rows] = draw_tokens(changed_SV[rows] - best_S[rows, None], wanted)
    tokens = token_S.tolist()
    asked = [row for row, draw in enumerate(draws) if draw.params.logprobs is not None and finite[row]]
    if not asked:
        return [Choice(token) if good else None for token, good in zip(tokens, finite, strict=True)]
    counts = [draws[row].params.logprobs or 0 for row in asked]
    found = token_logprobs(logits_SV[asked], [tokens[row] for row in asked], counts)
    scored = dict(zip(asked, found, strict=True))
    return [
        None if not good else Choice(token, *scored[row][1:]) if row in scored else Choice(token)
        for row, (token, good) in enumerate(zip(tokens, finite, strict=True))
    ]
