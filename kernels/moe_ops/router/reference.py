"""The definition, in fp32 throughout: a choice of experts flips on the last bits of a score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as fn

_SUM_EPSILON = 1e-20  # weights may all underflow to zero; 0 / 0 would poison the token


@dataclass(frozen=True, slots=True)
class RouterSpec:
    """How experts are chosen. `groups_kept` equal to `groups` means that all experts compete."""

    top_k: int
    groups: int
    groups_kept: int
    scoring: Literal["softmax", "sigmoid"]
    normalize: bool
    scale: float


def route(
    x_TD: torch.Tensor,
    weight_ED: torch.Tensor,
    bias_E: torch.Tensor | None,
    spec: RouterSpec,
    allowed_TE: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights (fp32) and expert numbers (int64), both of shape (T, K), in no particular order.

    The bias (fp32) decides the choice only; weights come from the unbiased scores. A group's score is its
    best expert's without a bias, as V2 has it, and the sum of its best two with one, as V3 has it. Where
    `allowed_TE` (bool; or `allowed_E` for all tokens) is False an expert is out before groups are compared;
    should too few be left, others fill the places with weight 0.
    """
    scores_TE = router_scores(x_TD, weight_ED, spec)
    choice_TE = scores_TE if bias_E is None else scores_TE + bias_E
    if allowed_TE is not None:
        choice_TE = choice_TE.masked_fill(~allowed_TE, float("-inf"))
    if spec.groups_kept < spec.groups:
        choice_TE = _keep_best_groups(choice_TE, spec, best=1 if bias_E is None else 2)
    experts_TK = choice_TE.topk(spec.top_k, dim=-1, sorted=False).indices
    weights_TK = scores_TE.gather(1, experts_TK)
    if allowed_TE is not None:
        weights_TK = weights_TK.masked_fill(choice_TE.gather(1, experts_TK) == float("-inf"), 0.0)
    return scaled_weights(weights_TK, spec), experts_TK


def router_scores(x_TD: torch.Tensor, weight_ED: torch.Tensor, spec: RouterSpec) -> torch.Tensor:
    """Each token's score of every expert, without bias (fp32, T × E)."""
    logits_TE = fn.linear(x_TD.float(), weight_ED.float())
    return logits_TE.sigmoid() if spec.scoring == "sigmoid" else logits_TE.softmax(-1)


def scaled_weights(weights_TK: torch.Tensor, spec: RouterSpec) -> torch.Tensor:
    """Weights from the scores of the chosen experts."""
    if spec.normalize:
        weights_TK = weights_TK / (weights_TK.sum(-1, keepdim=True) + _SUM_EPSILON)
    return weights_TK * spec.scale


def _keep_best_groups(choice_TE: torch.Tensor, spec: RouterSpec, *, best: int) -> torch.Tensor:
    """`choice_TE` with −inf for the experts of all groups but the `groups_kept` with the highest scores."""
    choice_TGE = choice_TE.view(len(choice_TE), spec.groups, -1)
    group_TG = choice_TGE.topk(best, dim=-1, sorted=False).values.sum(-1)
    kept_TG = group_TG.topk(spec.groups_kept, dim=-1, sorted=False).indices
    mask_TG = torch.full_like(group_TG, float("-inf")).scatter_(1, kept_TG, 0.0)
    return (choice_TGE + mask_TG.unsqueeze(-1)).flatten(1)
