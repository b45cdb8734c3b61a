"""Runs one step on the model: rows to tensors, forward pass, choice of tokens. Owns the cache's memory."""

from __future__ import annotations

import torch

from inference.engine.assembly import assemble
from inference.engine.packing import pack_rows
from inference.engine.sampler import choose_tokens
from inference.engine.step import RowResult, Step
from inference.engine.types import EngineConfig
from inference.models.deepseek import DeepseekModel

_NOTHING = RowResult()
_NOT_FINITE = RowResult(error="the model returned numbers that are not finite")


class Runner:
    """The only part of the engine that runs the model."""

    def __init__(self, model: DeepseekModel, config: EngineConfig) -> None:
        self._model = model
        self._page_size = config.page_size
        self._cache = model.new_cache(pages=config.pages, page_size=config.page_size)

    @torch.inference_mode()
    def run(self, step: Step) -> list[RowResult]:
        """One result per row, in the step's order. Raises what torch raises; only the cache changes."""
        groups = pack_rows(step.rows)
        model = self._model
        batch = assemble(groups, page_size=self._page_size, turn_XR=model.turn_XR, dtype=model.dtype)
        logits_SV, _ = model.forward(batch, self._cache)
        drawing = [row for group in groups for row in group if row.draw is not None]
        tokens = choose_tokens(logits_SV, [row.draw for row in drawing if row.draw is not None])
        results = {
            row.sequence.arrival: _NOT_FINITE if token is None else RowResult(token)
            for row, token in zip(drawing, tokens, strict=True)
        }
        return [results.get(row.sequence.arrival, _NOTHING) for row in step.rows]

    @torch.inference_mode()
    def scrub(self, pages: tuple[int, ...]) -> None:
        """Zero pages that may hold NaN: a masked weight is 0, and 0 × NaN would reach the next holder."""
        self._cache[:, list(pages)] = 0
