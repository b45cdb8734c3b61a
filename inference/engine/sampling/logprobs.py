"""Log probabilities of the model's own distribution: before penalties, masks, temperature and cuts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import torch

from inference.engine.types import TokenLogprob
from moe_ops import sample

MAX_TOP_LOGPROBS = 20
_ROWS_AT_ONCE = 32  # of a prompt: bounds the memory beside the logits

Scored = tuple[int, float, tuple[tuple[int, float], ...]]


def token_logprobs(logits_SV: torch.Tensor, tokens: Sequence[int], counts: Sequence[int]) -> Iterator[Scored]:
    """`(token, its natural log probability, the best counts[s] tokens with theirs, best first)` per row.

    Always as many candidates are looked at, so that the order of equals does not depend on the other rows.
    """
    size = min(MAX_TOP_LOGPROBS, logits_SV.shape[1]) if any(counts) else 0
    found = sample.token_logprobs(logits_SV, torch.tensor(tokens), size)
    chosen, best_tokens, best = (one.tolist() for one in found)
    for row, (token, count) in enumerate(zip(tokens, counts, strict=True)):
        top = tuple(islice(zip(best_tokens[row], best[row], strict=True), count))
        yield token, chosen[row], top


def prompt_logprobs(logits_TV: torch.Tensor, next_tokens: Sequence[int], count: int) -> list[TokenLogprob]:
    """What the model gave to each following token of a prompt.

    `logits_TV` are those of `len(next_tokens)` consecutive places; `next_tokens[t]` is the token that follows
    place t; `count` best tokens are named (at most MAX_TOP_LOGPROBS).
    """
    found: list[TokenLogprob] = []
    for start in range(0, len(next_tokens), _ROWS_AT_ONCE):
        tokens = next_tokens[start : start + _ROWS_AT_ONCE]
        rows_TV = logits_TV[start : start + len(tokens)]
        found += (TokenLogprob(*scored) for scored in token_logprobs(rows_TV, tokens, [count] * len(tokens)))
    return found
