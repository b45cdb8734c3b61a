"""The router's choice under a plan."""

from __future__ import annotations

import torch

from inference.layers.forms import Route
from inference.routing.plan import RoutingPlan
from moe_ops.router import RouterSpec
from moe_ops.router.reference import router_scores, scaled_weights


def planned_route(
    x_TD: torch.Tensor,
    router_ED: torch.Tensor,
    bias_E: torch.Tensor | None,
    spec: RouterSpec,
    *,
    plan: RoutingPlan,
    layer: int,
    route: Route,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights and experts of each token, as `route` gives them, within what the plan allows."""
    allowed_TE = None if plan.allowed_LTE is None else plan.allowed_LTE[layer].contiguous()
    weights_TK, experts_TK = route(x_TD, router_ED, bias_E, spec, allowed_TE)
    if plan.hashed_T is not None:
        scores_TE = router_scores(x_TD, router_ED, spec)
        weights_TK, experts_TK = hashed_choice(
            scores_TE, weights_TK, experts_TK, plan=plan, layer=layer, spec=spec
        )
    if plan.constant_LM is not None:
        return spread_constant(weights_TK, experts_TK, plan.constant_LM[layer], experts=len(router_ED))
    return weights_TK, experts_TK


def weigh_chosen(scores_TE: torch.Tensor, experts_TK: torch.Tensor, spec: RouterSpec) -> torch.Tensor:
    """The weights the router gives to experts that were chosen without it (fp32, T × K)."""
    return scaled_weights(scores_TE.gather(1, experts_TK), spec)


def spread_constant(
    weights_TK: torch.Tensor, experts_TK: torch.Tensor, pool_M: torch.Tensor, *, experts: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same mixture over the whole pool, with weight 0 for experts that were not chosen."""
    tokens = len(weights_TK)
    spread_TE = weights_TK.new_zeros(tokens, experts).scatter_(1, experts_TK, weights_TK)
    return spread_TE.index_select(1, pool_M), pool_M.repeat(tokens, 1)


def hashed_choice(
    scores_TE: torch.Tensor,
    weights_TK: torch.Tensor,
    experts_TK: torch.Tensor,
    *,
    plan: RoutingPlan,
    layer: int,
    spec: RouterSpec,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Replace the choice of hashed tokens by the table's."""
    if plan.hashed_T is None or plan.hashed_LTK is None:
        return weights_TK, experts_TK
    table_TK = plan.hashed_LTK[layer]
    hashed_T1 = plan.hashed_T[:, None]
    return (
        torch.where(hashed_T1, weigh_chosen(scores_TE, table_TK, spec), weights_TK),
        torch.where(hashed_T1, table_TK, experts_TK),
    )
