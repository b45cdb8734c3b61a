"""One token per row of logits."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import NamedTuple

import numpy as np
import torch

from inference.engine.sampling.adjust import changes_of
from inference.engine.sampling.logprobs import token_logprobs
from inference.engine.sampling.noise import uniforms
from inference.engine.step import Draw
from moe_ops import sample

_COLD = 1e-6  # temperatures down to here are taken for 0: far below, fp32 knows no number to divide by

_GIVEN = attrgetter("temperature", "top_p", "min_p", "top_k")


class Choice(NamedTuple):
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
    limits_S5 = np.zeros((len(draws), sample.LIMITS), dtype=np.float32)
    limits_S5[:, :-1] = [_GIVEN(draw.params) for draw in draws]
    temperature_S = limits_S5[:, 0]
    temperature_S[temperature_S <= _COLD] = 0
    if temperature_S.any():
        limits_S5[:, -1] = uniforms([draw.seed for draw in draws], [draw.index for draw in draws])
    return torch.from_numpy(limits_S5)
