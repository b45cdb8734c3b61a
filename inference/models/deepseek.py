"""The DeepSeek-V2 and V3 decoder over a paged latent cache."""

from __future__ import annotations

import torch

from inference.layers.attention import AttentionShape
from inference.layers.batch import FlatBatch
from inference.layers.forms import Forms
from inference.layers.moe import MoeMlp
from inference.models.config import ModelConfig
from inference.models.decoder import DecoderLayer
from inference.models.interface import Forward
from inference.models.mtp import MtpModule
from moe_ops.linear import PackedMatrix
from moe_ops.router import RouterSpec


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
        head: PackedMatrix,
        forms: Forms,
        mtp: MtpModule | None = None,
    ) -> None:
        self.config = config
        self.dtype = torch.float32  # of activations
        self.turn_XR = turn_XR
        self.mtp = mtp
        self._shape = shape
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
        """A zeroed cache of shape (layers, pages, positions in a page, latent + rotary width); the last layer
        is the prediction module's where it is loaded.
        """
        layers = len(self._layers) + (self.mtp is not None)
        return torch.zeros(layers, pages, page_size, self._shape.cached, dtype=self._embedding.dtype)

    def forward(self, batch: FlatBatch, cache: torch.Tensor) -> Forward:
        """Compute all tokens of `batch` and write their latents to `cache`."""
        eps = self.config.rms_norm_eps
        x_TD = self._embedding.index_select(0, batch.token_T).float()
        for index, layer in enumerate(self._layers):
            layer.add_to(x_TD, cache[index], batch, eps)
        hidden_TD = self._forms.rms_norm(x_TD, self._norm, eps)
        logits_SV = self._forms.linear(hidden_TD.index_select(0, batch.last_S), self._head)
        return Forward(logits_SV, hidden_TD)
