"""The DeepSeek-V2 and V3 decoder over a paged latent cache."""

from __future__ import annotations

from inference.models.config import ModelConfig
from inference.models.decoder import Decoder


class DeepseekModel(Decoder):
    """Decoder layers of latent attention, with V3's prediction module where it is loaded."""

    config: ModelConfig
