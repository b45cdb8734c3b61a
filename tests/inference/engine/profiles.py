"""Fixed-routing profiles for the tiny models of these tests."""

from __future__ import annotations

import torch

from inference.models.decoder import Decoder
from inference.routing.profile import RoutingProfile, routers_digest
from inference.routing.selection import keep_best

EXPERTS, KEPT = 8, 6


def profile_for(model: Decoder, mode: str, coverage_min: float = 0.0) -> RoutingProfile:
    routers = model.routers
    layers = len(routers)
    generator = torch.Generator().manual_seed(1)
    kept_LE = keep_best(torch.rand(layers, EXPERTS, generator=generator), KEPT, routers[0][1])
    first_LV1 = torch.randint(0, EXPERTS, (layers, model.config.vocab_size, 1), generator=generator)
    table_LVK = torch.cat([first_LV1, (first_LV1 + 1) % EXPERTS], dim=-1).to(torch.int16)
    return RoutingProfile(
        mode=mode,  # type: ignore[arg-type]  # modes vary
        domain="test",
        checkpoint=routers_digest(weight for weight, _ in routers),
        layers=layers,
        experts=EXPERTS,
        size=KEPT,
        coverage_min=coverage_min,
        covered=1.0,
        tokens=1,
        experts_LM=torch.stack([kept_E.nonzero().squeeze(1) for kept_E in kept_LE])
        if mode == "pool"
        else None,
        table_LVK=table_LVK if mode == "hash" else None,
    )
