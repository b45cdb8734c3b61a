"""One token per row of logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from inference.engine.sampling.adjust import changes_of
from inference.engine.sampling.logprobs import token_logprobs
from inference.engine.sampling.noise import uniform
from inference.engine.step import Draw
from moe_ops import sample

_COLD = 1e-6  # temperatures down to here are taken for 0: far below, fp32 knows no number to divide by


@dataclass(frozen=True, slots=True)
class Choice:
    """The chosen token; where asked for, its natural log probability and the best tokens with theirs."""

    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


def choose_tokens(logits_SV: torch.Tensor, draws: Sequence[Draw]) -> list[Choice | None]:
    """A choice per row of `logits_SV` (fp32, left unchanged); None where the best logit is not finite, be it
    the model's or, where a grammar allows nothing that is possible, what is left.
    """
    if not draws:
        return []
    tokens = sample.choose(logits_SV, _limits(draws), changes_of(draws)).tolist()
    asked = [row for row, draw in enumerate(draws) if draw.params.logprobs is not None and tokens[row] >= 0]
    if not asked:
        return [Choice(token) if token >= 0 else None for token in tokens]
    counts = [draws[row].params.logprobs or 0 for row in asked]
    logits_SV = logits_SV if len(asked) == len(draws) else logits_SV[asked]
    found = token_logprobs(logits_SV, [tokens[row] for row in asked], counts)
    scored = dict(zip(asked, found, strict=True))
    return [
        None if token < 0 else Choice(token, *scored[row][1:]) if row in scored else Choice(token)
        for row, token in enumerate(tokens)
    ]


def _limits(draws: Sequence[Draw]) -> torch.Tensor:
    """`limits_S5` of `moe_ops.sample`."""
    rows = []
    for draw in draws:
        params = draw.params
        temperature = params.temperature if params.temperature > _COLD else 0.0
        number = uniform(draw.seed, draw.index) if temperature > 0 else 0.0
        rows.append((temperature, params.top_p, params.min_p, params.top_k, number))
    return torch.tensor(rows, dtype=torch.float32)
