"""Layers of which every rank computes a part."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from inference.layers.batch import FlatBatch
from inference.layers.decoder_layer import DecoderLayer
from inference.layers.forms import GroupedMlp
from inference.layers.mlp import GatedMlp
from inference.parallel.ranks import Ranks
from moe_ops.grouped_mlp import PackedExperts


@dataclass(frozen=True, slots=True)
class SummedLayer(DecoderLayer):
    """A decoder layer whose attention and MLP are parts: their results are summed over the ranks.

    `shared` is this rank's part of the shared experts where it is not in the stack of the routed ones.
    """

    ranks: Ranks
    shared: GatedMlp | None

    def add_to(self, x_TD: torch.Tensor, cache_PZC: torch.Tensor, batch: FlatBatch, eps: float) -> None:
        """As the whole layer: `x_TD` is the same on every rank, before and after."""
        norm = self.forms.rms_norm
        part_TD = torch.zeros_like(x_TD)
        self.attention.add_to(part_TD, norm(x_TD, self.attention_norm, eps), cache_PZC, batch)
        x_TD.add_(self.ranks.sum_(part_TD))
        in_TD, part_TD = norm(x_TD, self.mlp_norm, eps), torch.zeros_like(x_TD)
        self.mlp.add_to(part_TD, in_TD, batch)
        if self.shared is not None:
            self.shared.add_to(part_TD, in_TD, batch)
        x_TD.add_(self.ranks.sum_(part_TD))


@dataclass(frozen=True, slots=True)
class OwnExperts:
    """The grouped MLP of a rank that has the routed experts from `first` on; other experts add nothing.

    Every rank routes all tokens by itself. After attention's sum each has every token's state, so no token
    needs to be sent to its experts, and the sum that the shared expert needs anyway brings the results back.
    Sending tokens (all to all) pays where attention is split by requests, which this engine does not do.
    """

    first: int
    grouped_mlp_: GroupedMlp

    def add_(
        self,
        out_TD: torch.Tensor,
        x_TD: torch.Tensor,
        *,
        experts: PackedExperts,
        weights_TK: torch.Tensor,
        experts_TK: torch.Tensor,
        shared: int = 0,
    ) -> torch.Tensor:
        """Add this rank's part to `out_TD`; `experts_TK` are numbers among all ranks' experts."""
        own_TK = experts_TK - self.first
        mine_TK = (own_TK >= 0) & (own_TK < experts.experts - shared)
        token_M, place_M = mine_TK.nonzero(as_tuple=True)
        if len(token_M):
            # M pairs of a token and an expert of this rank, each a row of its own
            y_MD = self.grouped_mlp_(
                out_TD.new_zeros(len(token_M), out_TD.shape[1]),
                x_TD.index_select(0, token_M),
                experts=experts,
                weights_TK=weights_TK[token_M, place_M].unsqueeze(1),
                experts_TK=own_TK[token_M, place_M].unsqueeze(1),
            )
            out_TD.index_add_(0, token_M, y_MD)
        if shared:
            self.grouped_mlp_(
                out_TD,
                x_TD,
                experts=experts,
                weights_TK=weights_TK[:, :0],
                experts_TK=experts_TK[:, :0],
                shared=shared,
            )
        return out_TD
