"""A decoder of layers with attention and MLP, each on a normed residual stream, over a paged cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from inference.layers.batch import FlatBatch
from inference.layers.forms import Forms
from inference.layers.mlp import GatedMlp
from inference.layers.moe import MoeMlp
from inference.models.interface import Architecture, DraftModule, Forward
from moe_ops.linear import PackedMatrix
from moe_ops.router import RouterSpec


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


class Decoder:
    """Weights of one checkpoint, ready to run. Holds no state of any request.

    `cached` is how many numbers a layer keeps of a token.
    """

    config: Architecture

    def __init__(
        self,
        *,
        config: Architecture,
        cached: int,
        turn_XR: torch.Tensor,
        embedding: torch.Tensor,
        layers: tuple[DecoderLayer, ...],
        norm: torch.Tensor,
        head: PackedMatrix,
        forms: Forms,
        mtp: DraftModule | None = None,
    ) -> None:
        self.config = config
        self.dtype = torch.float32  # of activations
        self.turn_XR = turn_XR
        self.mtp = mtp
        self._cached = cached
        self._embedding = embedding
        self._layers = layers
        self._norm = norm
        self._head = head
        self._forms = forms

    @property
    def routers(self) -> tuple[tuple[torch.Tensor, RouterSpec], ...]:
        """Each routed layer's router weight (experts, hidden), fp32, and how it chooses."""
        return tuple(layer.mlp.router for layer in self._layers if isinstance(layer.mlp, MoeMlp))

    def new_cache(self, *, pages: int, page_size: int) -> torch.Tensor:
        """A zeroed cache of shape (layers, pages, positions in a page, numbers of a token); the last layer is
        the prediction module's where it is loaded.
        """
        layers = len(self._layers) + (self.mtp is not None)
        return torch.zeros(layers, pages, page_size, self._cached, dtype=self._embedding.dtype)

    def forward(self, batch: FlatBatch, cache: torch.Tensor) -> Forward:
        """Compute all tokens of `batch` and write what later ones need of them to `cache`."""
        eps = self.config.rms_norm_eps
        x_TD = self._embedding.index_select(0, batch.token_T).float()
        for index, layer in enumerate(self._layers):
            layer.add_to(x_TD, cache[index], batch, eps)
        hidden_TD = self._forms.rms_norm(x_TD, self._norm, eps)
        logits_SV = self._forms.linear(hidden_TD.index_select(0, batch.last_S), self._head)
        return Forward(logits_SV, hidden_TD)
