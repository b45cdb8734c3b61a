"""DeepSeek-V3's multi-token prediction: one more decoder layer that guesses the token after next.

Published as the layer after the last. Its embedding and head are the main model's; files that carry copies of
them are read without them. Method: DeepSeek-V3 technical report, section 2.2.
"""

from __future__ import annotations

import torch

from inference.layers.batch import FlatBatch
from inference.models.decoder import DecoderLayer
from moe_ops.rms_norm import rms_norm


class MtpModule:
    """`head(norm(layer(eh_proj [enorm(embedding of the next token), hnorm(state)])))`.

    `state` is the main model's after its final norm, as the model was trained.
    """

    def __init__(
        self,
        *,
        embedding: torch.Tensor,
        embedding_norm: torch.Tensor,
        state_norm: torch.Tensor,
        joint: torch.Tensor,
        layer: DecoderLayer,
        norm: torch.Tensor,
        head_DV: torch.Tensor,
        eps: float,
    ) -> None:
        self._embedding = embedding
        self._embedding_norm = embedding_norm
        self._state_norm = state_norm
        self._joint = joint.t().contiguous()
        self._layer = layer
        self._norm = norm
        self._head_DV = head_DV
        self._eps = eps

    def forward(
        self, batch: FlatBatch, hidden_TD: torch.Tensor, next_token_T: torch.Tensor, cache: torch.Tensor
    ) -> torch.Tensor:
        """Logits (fp32) of `last_S` for the token after `next_token_T`; writes the cache's last layer.

        `hidden_TD` and `next_token_T` have a row for every token of `batch`.
        """
        eps = self._eps
        next_TD = rms_norm(self._embedding.index_select(0, next_token_T), self._embedding_norm, eps)
        state_TD = rms_norm(hidden_TD, self._state_norm, eps)
        x_TD = torch.mm(torch.cat([next_TD, state_TD], dim=1), self._joint)
        self._layer.add_to(x_TD, cache[-1], batch, eps)
        last_SD = rms_norm(x_TD.index_select(0, batch.last_S), self._norm, eps)
        return torch.mm(last_SD, self._head_DV).float()
