"""Load balancing without an auxiliary loss: the choice's bias follows the load, once per optimiser step."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from inference.train.experts import Router


def bias_update(bias_E: torch.Tensor, load_E: torch.Tensor, *, step: float) -> None:
    """In place: `bias += step · sign(mean load − load)`; overloaded experts get chosen less."""
    bias_E += step * torch.sign(load_E.mean() - load_E)


@torch.no_grad()
def routers_balance(routers: Sequence[Router], *, step: float) -> list[torch.Tensor]:
    """Update each router's bias from the load it counted, reset the counts, return them as shares of 1."""
    shares = []
    for router in routers:
        bias_update(router.e_score_correction_bias, router.load_E, step=step)
        shares.append(router.load_E / router.load_E.sum().clamp(min=1))
        router.load_E.zero_()
    return shares
