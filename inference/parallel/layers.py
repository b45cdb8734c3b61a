"""Layers of which every rank computes a part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from inference.layers.batch import FlatBatch
from inference.parallel.ranks import Ranks
from moe_ops.grouped_mlp import PackedExperts, packed_mlp_
from moe_ops.router import RouterSpec, route


class Adding(Protocol):
    """A layer that adds its result to its first argument in place."""

    def add_to(self, out_TD: torch.Tensor, /, *inputs: object) -> None: ...


@dataclass(frozen=True, slots=True)
class Summed:
    """A layer whose result is the sum of all ranks' parts."""

    part: Adding
    ranks: Ranks

    def add_to(self, out_TD: torch.Tensor, *inputs: object) -> None:
        """Add the sum to `out_TD` in place."""
        sum_TD = torch.zeros_like(out_TD)
        self.part.add_to(sum_TD, *inputs)
        out_TD.add_(self.ranks.sum_(sum_TD))


@dataclass(frozen=True, slots=True)
class OwnExperts:
    """The part of a mixture layer that one rank computes: all of some experts, some channels of the shared one.

    Every rank routes all tokens by itself. After attention's sum each has every token's state, so no token needs
    to be sent to its experts, and the sum that the shared expert needs anyway brings the results back. Sending
    tokens (all to all) pays where attention is split by requests instead, which this engine does not do.
    """

    router_ED: torch.Tensor
    bias_E: torch.Tensor | None
    spec: RouterSpec
    routed: PackedExperts
    first: int
    shared: PackedExperts | None

    def add_to(self, out_TD: torch.Tensor, x_TD: torch.Tensor, batch: FlatBatch) -> None:
        """Add this rank's part to `out_TD` in place. Adapters and fixed routing are not served in parts."""
        del batch
        weights_TK, experts_TK = route(x_TD, self.router_ED, self.bias_E, self.spec)
        if self.shared is not None:
            none_TK = weights_TK[:, :0], experts_TK[:, :0]
            packed_mlp_(
                out_TD, x_TD, experts=self.shared, weights_TK=none_TK[0], experts_TK=none_TK[1], shared=1
            )
        own_TK = experts_TK - self.first
        mine_TK = (own_TK >= 0) & (own_TK < self.routed.experts)
        # M pairs of a token and an expert of this rank, each a row of its own
        token_M, place_M = mine_TK.nonzero(as_tuple=True)
        if not len(token_M):
            return
        y_MD = packed_mlp_(
            out_TD.new_zeros(len(token_M), out_TD.shape[1]),
            x_TD.index_select(0, token_M),
            experts=self.routed,
            weights_TK=weights_TK[token_M, place_M].unsqueeze(1),
            experts_TK=own_TK[token_M, place_M].unsqueeze(1),
        )
        out_TD.index_add_(0, token_M, y_MD)
