"""Cached greedy generation equals recomputation, and draft acceptance counts what it says."""

from __future__ import annotations

import torch

from inference.train.evaluate import draft_acceptance
from inference.train.generate import greedy
from inference.train.losses import shifted_left
from inference.train.network import Network

PROMPT = [0, 20, 31, 42, 53]


def states(network: Network, ids: list[int]) -> torch.Tensor:
    look = torch.ones(1, 1, len(ids), len(ids), dtype=torch.bool).tril()
    with torch.no_grad():
        state: torch.Tensor = network(
            torch.tensor([ids]), network.context(torch.arange(len(ids))[None], look)
        )
    return state[0]


def test_the_cache_changes_nothing(tiny_network: Network) -> None:
    generated = greedy(tiny_network, PROMPT, new_tokens_max=80, stop_ids=frozenset())
    assert len(generated) == 80  # past the original 64 positions
    ids = [*PROMPT, *generated]
    with torch.no_grad():
        best = tiny_network.lm_head(states(tiny_network, ids)).argmax(dim=-1)
    assert best[len(PROMPT) - 1 : -1].tolist() == generated


def test_generation_ends_at_a_stop_token(tiny_network: Network) -> None:
    generated = greedy(tiny_network, PROMPT, new_tokens_max=40, stop_ids=frozenset())
    stop = generated[7]
    shorter = greedy(tiny_network, PROMPT, new_tokens_max=40, stop_ids=frozenset((stop,)))
    assert shorter == generated[: generated.index(stop)]


def test_drafts_are_counted_one_by_one(tiny_network: Network) -> None:
    generated = greedy(tiny_network, PROMPT, new_tokens_max=30, stop_ids=frozenset())
    ids = [*PROMPT, *generated]
    state = states(tiny_network, ids)[None]
    expected = 0
    for place in range(len(PROMPT) - 1, len(ids) - 2):
        head = torch.tensor([ids[: place + 1]])
        look = torch.ones(1, 1, place + 1, place + 1, dtype=torch.bool).tril()
        context = tiny_network.context(torch.arange(place + 1)[None], look)
        following = shifted_left(torch.tensor([ids[: place + 2]]), 0)[:, : place + 1]
        with torch.no_grad():
            drafted = tiny_network.mtp(
                tiny_network.embed_tokens(following), state[:, : head.shape[1]], context
            )
            guess = int(tiny_network.lm_head(drafted[0, -1]).argmax())
        expected += guess == ids[place + 2]
    assert draft_acceptance(tiny_network, [(PROMPT, generated), (PROMPT, [9])]) == (expected, 29)
