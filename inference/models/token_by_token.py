"""The reference mode: a model that computes one token a pass."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch

from inference.layers.batch import FlatBatch
from inference.models.around import ModelAround
from inference.models.interface import CausalModel, DraftModule, Forward
from moe_ops.latent_attention import PagedRows


class TokenByToken(ModelAround):
    """Runs `model` on each token of a batch alone, in order.

    Shapes of products then never depend on the batch, so that any split of it gives the same bits.
    """

    def __init__(self, model: CausalModel) -> None:
        super().__init__(model, None if model.mtp is None else _DraftTokenByToken(model.mtp))

    def forward(self, batch: FlatBatch, cache: torch.Tensor) -> Forward:
        """As the model's, one token after the other."""
        passes = [self._model.forward(one, cache) for one in _tokens(batch)]
        logits_TV = torch.cat([one.logits_SV for one in passes])
        return Forward(logits_TV[batch.last_S], torch.cat([one.hidden_TD for one in passes]))


class _DraftTokenByToken:
    def __init__(self, module: DraftModule) -> None:
        self._module = module

    def forward(
        self, batch: FlatBatch, hidden_TD: torch.Tensor, next_token_T: torch.Tensor, cache: torch.Tensor
    ) -> torch.Tensor:
        logits = [
            self._module.forward(one, hidden_TD[at : at + 1], next_token_T[at : at + 1], cache)
            for at, one in enumerate(_tokens(batch))
        ]
        return torch.cat(logits)[batch.last_S]


def _tokens(batch: FlatBatch) -> Iterator[FlatBatch]:
    """A batch for each token, which asks for its logits."""
    one = torch.ones(1, dtype=torch.int32)
    for at, (pages_1P, end) in enumerate(_contexts(batch)):
        here = slice(at, at + 1)
        yield dataclasses.replace(
            batch,
            token_T=batch.token_T[here],
            turn_TR=batch.turn_TR[here],
            slot_T=batch.slot_T[here],
            short=PagedRows(pages_1P, one - 1, one, one * end),
            long=(),
            last_S=torch.zeros(1, dtype=torch.int64),
            adapters=None if batch.adapters is None else batch.adapters.only(at),
            routing=None if batch.routing is None else batch.routing.only(at),
        )


def _contexts(batch: FlatBatch) -> Iterator[tuple[torch.Tensor, int]]:
    """Pages and context length of every token, in the order of the batch."""
    if batch.short is not None:
        rows = batch.short
        for pages_P, count, end in zip(
            rows.pages_BP, rows.count_B.tolist(), rows.end_B.tolist(), strict=True
        ):
            for length in range(end - count + 1, end + 1):
                yield pages_P.unsqueeze(0), length
    for row in batch.long:
        for length in range(row.start + 1, row.start + row.count + 1):
            yield row.pages_P.unsqueeze(0), length
