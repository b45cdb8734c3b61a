"""Greedy generation with a latent cache, one sequence at a time: for evaluation, not for serving."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from inference.train.network import LatentCache, Network


@torch.no_grad()
def greedy(
    network: Network, prompt_ids: Sequence[int], *, new_tokens_max: int, stop_ids: frozenset[int]
) -> list[int]:
    """The most likely continuation, ended by a stop token (not returned) or `new_tokens_max`."""
    caches = [LatentCache() for _ in network.layers]
    generated: list[int] = []
    pending = list(prompt_ids)
    seen = 0
    while len(generated) < new_tokens_max:
        position_BT = torch.arange(seen, seen + len(pending))[None]
        look_TS = torch.ones(len(pending), seen + len(pending), dtype=torch.bool).tril(diagonal=seen)
        context = network.context(position_BT, look_TS[None, None])
        state = network(torch.tensor([pending]), context, caches)
        seen += len(pending)
        token = int(network.lm_head(state[0, -1]).argmax())
        if token in stop_ids:
            break
        generated.append(token)
        pending = [token]
    return generated
