"""One layer of a decoder: attention and MLP, each on a normed residual stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from inference.layers.batch import FlatBatch
from inference.layers.forms import Forms
from inference.layers.mlp import GatedMlp
from inference.layers.moe import MoeMlp


class Attention(Protocol):
    """One layer's attention, whatever it caches."""

    def add_to(
        self, out_TD: torch.Tensor, x_TD: torch.Tensor, cache_PZC: torch.Tensor, batch: FlatBatch
    ) -> None:
        """Write the rows of `x_TD` to the cache, attend, and add the result to `out_TD` in place."""
        ...


@dataclass(frozen=True, slots=True)
class DecoderLayer:
    """Attention and MLP with the norms before them."""

    attention_norm: torch.Tensor
    attention: Attention
    mlp_norm: torch.Tensor
    mlp: GatedMlp | MoeMlp
    forms: Forms

    def add_to(self, x_TD: torch.Tensor, cache_PZC: torch.Tensor, batch: FlatBatch, eps: float) -> None:
        """Add what the layer computes to `x_TD` in place; what later tokens need goes to `cache_PZC`."""
        norm = self.forms.rms_norm
        self.attention.add_to(x_TD, norm(x_TD, self.attention_norm, eps), cache_PZC, batch)
        self.mlp.add_to(x_TD, norm(x_TD, self.mlp_norm, eps), batch)
