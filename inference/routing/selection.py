"""From scores to sets of experts that the router can always work with."""

from __future__ import annotations

import torch

from inference.routing.profile import ProfileError
from moe_ops.router import RouterSpec


def keep_best(score_LE: torch.Tensor, size: int, spec: RouterSpec) -> torch.Tensor:
    """The `size` best experts of each layer, as a mask (L, E).

    Where groups compete, the best experts of the best groups come first, so that every choice of
    `groups_kept` groups has enough left: the rest of the places goes by score. Raises `ProfileError` when
    `size` can not be enough.
    """
    layers, experts = score_LE.shape
    least = least_size(spec, experts)
    if not least <= size <= experts:
        raise ProfileError(f"experts kept per layer: expected {least} … {experts}, found {size}")
    return torch.stack([_keep_layer(score_LE[layer], size, spec) for layer in range(layers)])


def least_size(spec: RouterSpec, experts: int) -> int:
    """The fewest experts a layer can do with."""
    per_group = _per_group(spec)
    return spec.top_k if spec.groups_kept == spec.groups else per_group * spec.groups_kept


def enough_left(kept_E: torch.Tensor, spec: RouterSpec) -> bool:
    """Whether routing among `kept_E` always finds `top_k` experts, whatever the scores are."""
    if spec.groups_kept == spec.groups:
        return int(kept_E.sum()) >= spec.top_k
    count_G = kept_E.view(spec.groups, -1).sum(-1)
    usable = sorted(count for count in count_G.tolist() if count >= _group_floor(spec))
    if any(0 < count < _group_floor(spec) for count in count_G.tolist()):
        return False
    return len(usable) >= spec.groups_kept and sum(usable[: spec.groups_kept]) >= spec.top_k


def _keep_layer(score_E: torch.Tensor, size: int, spec: RouterSpec) -> torch.Tensor:
    kept_E = torch.zeros_like(score_E, dtype=torch.bool)
    if spec.groups_kept == spec.groups:
        kept_E[score_E.topk(size).indices] = True
        return kept_E
    score_GE, kept_GE = score_E.view(spec.groups, -1), kept_E.view(spec.groups, -1)
    per_group = _per_group(spec)
    best_GK = score_GE.topk(per_group, dim=-1)
    groups = best_GK.values.sum(-1).argsort(descending=True)
    for rank, group in enumerate(groups.tolist()):
        if rank >= spec.groups_kept and int(kept_E.sum()) + per_group > size:
            break
        kept_GE[group, best_GK.indices[group]] = True
    open_E = kept_GE.any(-1, keepdim=True) & ~kept_GE
    left = size - int(kept_E.sum())
    more_E = score_E.masked_fill(~open_E.flatten(), float("-inf")).topk(left).indices
    kept_E[more_E] |= open_E.flatten()[more_E]
    return kept_E


def _per_group(spec: RouterSpec) -> int:
    """Experts that each kept group needs, so that any `groups_kept` of them have `top_k` together."""
    return max(-(-spec.top_k // spec.groups_kept), _group_floor(spec))


def _group_floor(spec: RouterSpec) -> int:
    """A V3 group's score is the sum of its best two: with one expert left it would be −inf."""
    return 2 if spec.scoring == "sigmoid" and spec.groups_kept < spec.groups else 1
