"""Log probabilities of the model's own distribution: before penalties, masks, temperature and cuts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import torch

from inference.engine.types import TokenLogprob

MAX_TOP_LOGPROBS = 20
_ROWS_AT_ONCE = 32  # of a prompt: bounds the memory beside the logits

Scored = tuple[int, float, tuple[tuple[int, float], ...]]


def token_logprobs(logits_SV: torch.Tensor, tokens: Sequence[int], counts: Sequence[int]) -> Iterator[Scored]:
    """`(token, its natural log probability, the best counts[s] tokens with theirs, best first)` per row.

    Always as many candidates are looked at, so that the order of equals does not depend on the other rows.
    """
    total_S1 = logits_SV.logsumexp(-1, keepdim=True)
    token_S1 = torch.tensor(tokens, device=logits_SV.device)[:, None]
    chosen = (logits_SV.gather(1, token_S1) - total_S1).squeeze(1).tolist()
    if not any(counts):
        yield from ((token, logprob, ()) for token, logprob in zip(tokens, chosen, strict=True))
        return
    size = min(MAX_TOP_LOGPROBS, logits_SV.shape[1])
    best_SK, best_token_SK = logits_SV.topk(size, dim=-1)
    best, best_tokens = (best_SK - total_S1).tolist(), best_token_SK.tolist()
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
