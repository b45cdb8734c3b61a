"""The DeepSeek-V2 and V3 decoder over a paged latent cache."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from inference.layers.attention import AttentionShape, LatentAttention
from inference.layers.batch import FlatBatch
from inference.layers.mlp import GatedMlp
from inference.layers.moe import MoeMlp
from inference.models.config import ModelConfig
from moe_ops.rms_norm import rms_norm


@dataclass(frozen=True, slots=True)
class DecoderLayer:
    """Attention and MLP with the norms before them."""

    attention_norm: torch.Tensor
    attention: LatentAttention
    mlp_norm: torch.Tensor
    mlp: GatedMlp | MoeMlp


class DeepseekModel:
    """Weights of one checkpoint, ready to run. Holds no state of any request."""

    def __init__(
        self,
        *,
        config: ModelConfig,
        shape: AttentionShape,
        turn_XR: torch.Tensor,
        embedding: torch.Tensor,
        layers: tuple[DecoderLayer, ...],
        norm: torch.Tensor,
        head: torch.Tensor,
    ) -> None:
        self.config = config
        self.dtype = embedding.dtype
        self.turn_XR = turn_XR
        self._shape = shape
        self._embedding = embedding
        self._layers = layers
        self._norm = norm
        self._head_DV = head.t().contiguous()

    def new_cache(self, *, pages: int, page_size: int) -> torch.Tensor:
        """A zeroed cache of shape (layers, pages, positions in a page, latent + rotary width)."""
        return torch.zeros(len(self._layers), pages, page_size, self._shape.cached, dtype=self.dtype)

    def forward(self, batch: FlatBatch, cache: torch.Tensor) -> torch.Tensor:
        """Compute all tokens of `batch`, write their latents to `cache`, and return the logits (fp32) of
        `last_S`.
        """
        eps = self.config.rms_norm_eps
        x_TD = self._embedding.index_select(0, batch.token_T)
        for layer, cache_PZC in zip(self._layers, cache, strict=True):
            layer.attention.add_to(x_TD, rms_norm(x_TD, layer.attention_norm, eps), cache_PZC, batch)
            layer.mlp.add_to(x_TD, rms_norm(x_TD, layer.mlp_norm, eps))
        last_SD = rms_norm(x_TD.index_select(0, batch.last_S), self._norm, eps)
        return torch.mm(last_SD, self._head_DV).float()
