"""Balancing moves the load towards the mean, and routing obeys its groups."""

from __future__ import annotations

import torch

from inference.train.balance import bias_update, routers_balance
from inference.train.network import Network


def test_overloaded_experts_lose_bias_and_idle_ones_gain() -> None:
    bias = torch.tensor([0.0, 0.5, 0.0, 0.0])
    bias_update(bias, torch.tensor([10.0, 0.0, 5.0, 5.0]), step=0.01)
    torch.testing.assert_close(bias, torch.tensor([-0.01, 0.51, 0.0, 0.0]))


def test_repeated_updates_even_a_skewed_load_out(tiny_network: Network) -> None:
    router = tiny_network.routers()[0]
    torch.manual_seed(0)
    x_ND = torch.randn(512, 32) + 0.5  # a common direction makes some experts favourites
    router.train()

    def shares() -> torch.Tensor:
        router(x_ND)
        return routers_balance([router], step=0.02)[0]

    before = shares()
    for _ in range(60):
        after = shares()
    assert (before - 1 / 8).abs().max() * 8 > 0.6
    assert (after - 1 / 8).abs().max() < 0.5 * (before - 1 / 8).abs().max()


def test_counts_are_reset_and_kept_only_while_training(tiny_network: Network) -> None:
    router = tiny_network.routers()[0]
    router.train()
    router(torch.randn(10, 32))
    assert router.load_E.sum() == 20
    routers_balance([router], step=0.0)
    assert router.load_E.sum() == 0
    router.eval()
    router(torch.randn(10, 32))
    assert router.load_E.sum() == 0


def test_chosen_experts_lie_in_the_allowed_number_of_groups(tiny_network: Network) -> None:
    weight_NK, expert_NK = tiny_network.routers()[0](torch.randn(200, 32))
    groups = [len(set((row // 2).tolist())) for row in expert_NK]
    assert max(groups) <= 2
    torch.testing.assert_close(weight_NK.sum(dim=1), torch.full((200,), 2.0))
