"""How the tokens of one step are routed, in the form that the mixture layers read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from inference.routing.request import RequestRouting

# Beyond, nearly all kept experts are touched anyway, and products cost more than reads.
CONSTANT_TOKENS_MAX = 8


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

    def to(self, device: torch.device) -> RoutingPlan:
        """The same plan on `device`."""
        tensors = self.allowed_LTE, self.hashed_T, self.hashed_LTK, self.constant_LM
        return RoutingPlan(self.layers, *(None if one is None else one.to(device) for one in tensors))

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
    first = next((routing for routing in routing_T if routing is not None), None)
    if first is None:
        return None
    hashed_T, hashed_LTK = _hashed(routing_T, token_T)
    return RoutingPlan(first.profile.layers, _allowed(routing_T), hashed_T, hashed_LTK, _constant(routing_T))


def _allowed(routing_T: Sequence[RequestRouting | None]) -> torch.Tensor | None:
    mask_T = [None if routing is None else routing.kept_LE for routing in routing_T]
    masks = {id(mask_LE): mask_LE for mask_LE in mask_T}  # None: no restriction
    some_LE = next((mask_LE for mask_LE in mask_T if mask_LE is not None), None)
    if some_LE is None:
        return None
    if len(masks) == 1:
        return some_LE[:, None].expand(-1, len(mask_T), -1)
    place = {key: number for number, key in enumerate(masks)}
    all_MLE = torch.stack([torch.ones_like(some_LE) if one is None else one for one in masks.values()])
    place_T = torch.tensor([place[id(mask_LE)] for mask_LE in mask_T])
    return all_MLE.index_select(0, place_T).transpose(0, 1)


def _hashed(
    routing_T: Sequence[RequestRouting | None], token_T: torch.Tensor
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    table_T = [None if routing is None else routing.profile.table_LVK for routing in routing_T]
    hashed_T, hashed_LTK = None, None
    for table_LVK in {id(table): table for table in table_T}.values():
        if table_LVK is None:
            continue
        mine_T = torch.tensor([table is table_LVK for table in table_T])
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
