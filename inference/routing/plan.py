"""How the tokens of one step are routed, in the form that the mixture layers read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from inference.routing.request import RequestRouting

CONSTANT_TOKENS_MAX = (
    8  # beyond, nearly all kept experts are touched anyway, and products cost more than reads
)


@dataclass(frozen=True, slots=True)
class RoutingPlan:
    """Restrictions by routed layer and token; a token without any is routed dynamically.

    There are none beyond the first `layers` routed layers: a draft module is free.
    `allowed_LTE` is False where a token may not go. `hashed_T` tokens take the experts `hashed_LTK` without
    looking at scores for the choice. `constant_LM` (None: not this step) are experts that all tokens compute,
    with weight 0 where they were not routed, so that the step's shape and time do not depend on its tokens.
    """

    layers: int
    allowed_LTE: torch.Tensor | None = None
    hashed_T: torch.Tensor | None = None
    hashed_LTK: torch.Tensor | None = None
    constant_LM: torch.Tensor | None = None

    def only(self, token: int) -> RoutingPlan:
        """The plan of one token alone."""
        here = slice(token, token + 1)
        return RoutingPlan(
            self.layers,
            None if self.allowed_LTE is None else self.allowed_LTE[:, here],
            None if self.hashed_T is None else self.hashed_T[here],
            None if self.hashed_LTK is None else self.hashed_LTK[:, here],
            self.constant_LM,
        )


def plan_build(routing_T: Sequence[RequestRouting | None], token_T: torch.Tensor) -> RoutingPlan | None:
    """The plan for a flat batch, given each token's routing; None for prompts and dynamic requests."""
    present = {id(routing): routing for routing in routing_T if routing is not None}
    if not present:
        return None
    allowed_LTE = _allowed(routing_T, present)
    hashed_T, hashed_LTK = _hashed(routing_T, present, token_T)
    layers = next(iter(present.values())).profile.layers
    return RoutingPlan(layers, allowed_LTE, hashed_T, hashed_LTK, _constant(routing_T))


def _allowed(
    routing_T: Sequence[RequestRouting | None], present: dict[int, RequestRouting]
) -> torch.Tensor | None:
    masks: list[torch.Tensor] = []
    places: dict[int, int] = {}
    for key, routing in present.items():
        if routing.kept_LE is not None:
            places[key] = len(masks)
            masks.append(routing.kept_LE)
    if not masks:
        return None
    masks.append(torch.ones_like(masks[0]))  # tokens without a restriction
    place_T = torch.tensor([places.get(id(routing), len(masks) - 1) for routing in routing_T])
    return torch.stack(masks).index_select(0, place_T).transpose(0, 1)


def _hashed(
    routing_T: Sequence[RequestRouting | None], present: dict[int, RequestRouting], token_T: torch.Tensor
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    hashed_T, hashed_LTK = None, None
    for key, routing in present.items():
        table_LVK = routing.profile.table_LVK
        if table_LVK is None:
            continue
        mine_T = torch.tensor([id(one) == key for one in routing_T])
        found_LTK = table_LVK.index_select(1, token_T).long()
        hashed_LTK = found_LTK if hashed_LTK is None else torch.where(mine_T[:, None], found_LTK, hashed_LTK)
        hashed_T = mine_T if hashed_T is None else hashed_T | mine_T
    return hashed_T, hashed_LTK


def _constant(routing_T: Sequence[RequestRouting | None]) -> torch.Tensor | None:
    """The pool of a step in which few tokens all use the same one."""
    first = routing_T[0]
    if first is None or len(routing_T) > CONSTANT_TOKENS_MAX:
        return None
    same = all(routing is not None and routing.profile is first.profile for routing in routing_T)
    return first.profile.experts_LM if same else None
