"""Runs one step on the model: rows to tensors, forward pass, choice of tokens. Owns the cache's memory."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from inference.engine.assembly import assemble
from inference.engine.packing import pack_rows
from inference.engine.sampling import choose_tokens
from inference.engine.step import RowResult, Step
from inference.engine.types import EngineConfig
from inference.models.interface import CausalModel

_NOTHING = RowResult()
_NOT_FINITE = RowResult(error="the model returned numbers that are not finite")


class Runner:
    """The only part of the engine that runs the model."""

    def __init__(self, model: CausalModel, config: EngineConfig) -> None:
        self._model = model
        self._page_size = config.page_size
        self._cache = model.new_cache(pages=config.pages, page_size=config.page_size)

    @torch.inference_mode()
    def run(self, step: Step) -> list[RowResult]:
        """One result per row, in the step's order. Raises what torch raises; only the cache changes."""
        groups = pack_rows(step.rows)
        model = self._model
        batch = assemble(groups, page_size=self._page_size, turn_XR=model.turn_XR, dtype=model.dtype)
        logits_SV = model.forward(batch, self._cache).logits_SV
        drawing = [row for group in groups for row in group if row.draws]
        choices = iter(choose_tokens(logits_SV, [draw for row in drawing for draw in row.draws]))
        results = {}
        for row in drawing:
            chosen = [next(choices) for _ in row.draws]
            tokens = tuple(one.token for one in chosen if one is not None)
            complete = len(tokens) == len(chosen)
            results[row.sequence.arrival] = RowResult(tokens) if complete else _NOT_FINITE
        return [results.get(row.sequence.arrival, _NOTHING) for row in step.rows]

    @torch.inference_mode()
    def scrub(self, pages: Iterable[int]) -> None:
        """Zero pages that may hold NaN: a masked weight is 0, and 0 × NaN would reach the next holder."""
        self._cache[:, list(pages)] = 0
