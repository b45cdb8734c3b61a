"""DeepSeek-V3's multi-token prediction: one more decoder layer that guesses the token after next.

Published as the layer after the last. Its embedding and head are the main model's; files that carry copies of
them are read without them. Method: DeepSeek-V3 technical report, section 2.2.
"""

from __future__ import annotations

import torch

from inference.layers.batch import FlatBatch
from inference.layers.decoder_layer import DecoderLayer
from inference.layers.forms import Forms
from moe_ops.linear import PackedMatrix


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
        joint: PackedMatrix,
        layer: DecoderLayer,
        norm: torch.Tensor,
        head: PackedMatrix,
        eps: float,
        forms: Forms,
    ) -> None:
        self._embedding = embedding
        self._embedding_norm = embedding_norm
        self._state_norm = state_norm
        self._joint = joint
        self._layer = layer
        self._norm = norm
        self._head = head
        self._eps = eps
        self._forms = forms

    def forward(
        self, batch: FlatBatch, hidden_TD: torch.Tensor, next_token_T: torch.Tensor, cache: torch.Tensor
    ) -> torch.Tensor:
        """Logits (fp32) of `last_S` for the token after `next_token_T`; writes the cache's last layer.

        `hidden_TD` and `next_token_T` have a row for every token of `batch`.
        """
        eps, norm, linear = self._eps, self._forms.rms_norm, self._forms.linear
        next_TD = self._embedding.index_select(0, next_token_T).to(hidden_TD.dtype)
        next_TD = norm(next_TD, self._embedding_norm, eps)
        state_TD = norm(hidden_TD, self._state_norm, eps)
        x_TD = linear(torch.cat([next_TD, state_TD], dim=1), self._joint)
        self._layer.add_to(x_TD, cache[-1], batch, eps)
        last_SD = norm(x_TD.index_select(0, batch.last_S), self._norm, eps)
        return self._forms.logits(last_SD, self._head)
