"""Whether a profile was made for a model."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from inference.routing.profile import ProfileError, RoutingProfile, routers_digest
from inference.routing.selection import least_size
from moe_ops.router import RouterSpec


def profile_fit(
    profile: RoutingProfile, routers: Sequence[tuple[torch.Tensor, RouterSpec]], vocabulary: int | None = None
) -> None:
    """Raise `ProfileError`, with both numbers where numbers differ, unless `profile` is one for the model of
    these routers (weights of E × D) and of so many tokens (None: not known).
    """
    if not routers:
        raise ProfileError(f"{profile.id}: this model has no routed layers")
    experts, spec = len(routers[0][0]), routers[0][1]
    _same(profile, "routed layers", profile.layers, len(routers))
    _same(profile, "experts a layer", profile.experts, experts)
    if profile.table_LVK is not None:
        _, tokens, chosen = profile.table_LVK.shape
        _same(profile, "experts a token", chosen, spec.top_k)
        _same(profile, "tokens of the vocabulary", tokens, tokens if vocabulary is None else vocabulary)
    if profile.mode != "hash" and profile.size < (least := least_size(spec, experts)):
        raise ProfileError(
            f"{profile.id} keeps {profile.size} experts a layer; this model's router needs at least {least}"
        )
    if profile.checkpoint != routers_digest(weight for weight, _ in routers):
        raise ProfileError(f"{profile.id} was made for another checkpoint")


def _same(profile: RoutingProfile, what: str, found: int, expected: int) -> None:
    if found != expected:
        raise ProfileError(
            f"{profile.id} was made for another checkpoint: for {found} {what}, this model has {expected}"
        )
