"""A profile of another model is refused with both numbers, before anything is computed with it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from inference.routing.fitting import profile_fit
from inference.routing.profile import ProfileError, RoutingProfile, routers_digest
from moe_ops.router import RouterSpec

SPEC = RouterSpec(top_k=2, groups=1, groups_kept=1, scoring="softmax", normalize=True, scale=1.0)
ROUTERS = [(torch.randn(4, 3), SPEC) for _ in range(2)]
POOL = RoutingProfile(
    mode="pool", domain="code", checkpoint=routers_digest(weight for weight, _ in ROUTERS), layers=2,
    experts=4, size=2, coverage_min=0.5, covered=0.8, tokens=100, experts_LM=torch.tensor([[0, 2], [1, 3]]),
)  # fmt: skip
HASH = replace(POOL, mode="hash", experts_LM=None, table_LVK=torch.zeros(2, 10, 2, dtype=torch.int16))


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        (replace(POOL, layers=3, experts_LM=torch.zeros(3, 2)), "3 routed layers, this model has 2"),
        (replace(POOL, experts=8), "8 experts a layer, this model has 4"),
        (replace(POOL, size=1), "keeps 1 experts a layer; this model's router needs at least 2"),
        (replace(POOL, checkpoint="other"), "another checkpoint"),
        (
            replace(HASH, table_LVK=torch.zeros(2, 9, 2, dtype=torch.int16)),
            "9 tokens of the vocabulary, this model has 10",
        ),
        (
            replace(HASH, table_LVK=torch.zeros(2, 10, 3, dtype=torch.int16)),
            "3 experts a token, this model has 2",
        ),
    ],
)
def test_a_profile_of_another_model_is_refused(profile: RoutingProfile, message: str) -> None:
    with pytest.raises(ProfileError, match=message):
        profile_fit(profile, ROUTERS, 10)


def test_the_models_own_fit() -> None:
    profile_fit(POOL, ROUTERS, 10)
    profile_fit(HASH, ROUTERS, 10)
    with pytest.raises(ProfileError, match="no routed layers"):
        profile_fit(POOL, [])
