"""What the engine asks of a model, whatever its architecture.

A model keeps one row of numbers per token and layer in a paged cache of shape (layers, pages, positions in a
page, width). What the row holds is the architecture's own business: a latent, or keys and values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch

from inference.layers.batch import FlatBatch
from moe_ops.router import RouterSpec

Routers = Sequence[tuple[torch.Tensor, RouterSpec]]


class Forward(NamedTuple):
    """One pass: logits (fp32) of the tokens named by `last_S`, and every token's state after the final
    norm.
    """

    logits_SV: torch.Tensor
    hidden_TD: torch.Tensor


class DraftModule(Protocol):
    """Predicts the token after next. Its layer of the cache is the last one."""

    def forward(
        self, batch: FlatBatch, hidden_TD: torch.Tensor, next_token_T: torch.Tensor, cache: torch.Tensor
    ) -> torch.Tensor:
        """Logits (fp32) of `last_S` for what follows `next_token_T`.

        `hidden_TD` are the main model's states of the batch's tokens, `next_token_T` the tokens after them;
        positions and cache slots are those of the batch.
        """
        ...


class Architecture(Protocol):
    """What engine and decoder need to know of a configuration."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def max_position_embeddings(self) -> int: ...

    @property
    def rms_norm_eps(self) -> float: ...


class CausalModel(Protocol):
    """A decoder over a paged cache. `turn_XR` are the rotations of all positions as complex numbers."""

    turn_XR: torch.Tensor

    @property
    def config(self) -> Architecture: ...

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def mtp(self) -> DraftModule | None: ...

    @property
    def routers(self) -> Routers:
        """Each routed layer's router weight (experts, hidden), fp32, and how it chooses."""
        ...

    def new_cache(self, *, pages: int, page_size: int) -> torch.Tensor:
        """A zeroed cache; its last layer is the draft module's where there is one."""
        ...

    def forward(self, batch: FlatBatch, cache: torch.Tensor) -> Forward:
        """Compute all tokens of `batch` and write what later tokens need of them to `cache`."""
        ...
