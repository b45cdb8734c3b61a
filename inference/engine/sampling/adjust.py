"""What rows change about their raw logits: penalties, biases, grammar masks."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import torch

from inference.engine.sampling.touched import Touched
from inference.engine.step import Draw
from inference.engine.types import SamplingParams
from moe_ops.sample import Changes

_NONE = array("i"), array("f"), array("f")


def changes_of(draws: Sequence[Draw]) -> Changes | None:
    """The changes of all rows, or None when no row asks for any."""
    touched = [draw.touched or Touched.of(draw.params) for draw in draws]
    masks = [draw.grammar.mask for draw in draws if draw.grammar is not None]
    if not masks and not any(touched):
        return None
    for draw, one in zip(draws, touched, strict=True):
        if one is not None:
            one.read(draw.tokens, draw.prompt_tokens)
    parts = [_NONE if one is None else (one.tokens, one.counts, one.biases) for one in touched]
    first = (0, *accumulate(len(tokens) for tokens, _, _ in parts))
    return Changes(
        first_S1=torch.tensor(first, dtype=torch.int32),
        token_N=_joined([tokens for tokens, _, _ in parts], torch.int32),
        count_N=_joined([counts for _, counts, _ in parts], torch.float32),
        bias_N=_joined([biases for _, _, biases in parts], torch.float32),
        strength_S3=torch.tensor([_strength(draw.params) for draw in draws]),
        mask_RB=torch.from_numpy(np.stack(masks)) if masks else None,
        mask_row_S=_mask_rows(draws),
    )


def _joined(parts: Sequence[array[int] | array[float]], dtype: torch.dtype) -> torch.Tensor:
    data = bytearray().join(parts)
    return torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)


def _strength(params: SamplingParams) -> tuple[float, float, float]:
    return params.repetition_penalty, params.presence_penalty, params.frequency_penalty


def _mask_rows(draws: Sequence[Draw]) -> torch.Tensor:
    rows = accumulate(draw.grammar is not None for draw in draws)
    places = [row - 1 if draw.grammar is not None else -1 for row, draw in zip(rows, draws, strict=True)]
    return torch.tensor(places, dtype=torch.int32)
