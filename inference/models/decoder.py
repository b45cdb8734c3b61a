"""One decoder layer: what main layers and the prediction module have in common."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from inference.layers.attention import LatentAttention
from inference.layers.batch import FlatBatch
from inference.layers.forms import Forms
from inference.layers.mlp import GatedMlp
from inference.layers.moe import MoeMlp


@dataclass(frozen=True, slots=True)
class DecoderLayer:
    """Attention and MLP with the norms before them."""

    attention_norm: torch.Tensor
    attention: LatentAttention
    mlp_norm: torch.Tensor
    mlp: GatedMlp | MoeMlp
    forms: Forms

    def add_to(self, x_TD: torch.Tensor, cache_PZC: torch.Tensor, batch: FlatBatch, eps: float) -> None:
        """Add what the layer computes to `x_TD` in place; the new tokens' latents go to `cache_PZC`."""
        norm = self.forms.rms_norm
        self.attention.add_to(x_TD, norm(x_TD, self.attention_norm, eps), cache_PZC, batch)
        self.mlp.add_to(x_TD, norm(x_TD, self.mlp_norm, eps), batch)
