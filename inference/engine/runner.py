"""Runs one step on the model: rows to tensors, forward pass, choice of tokens. Owns the cache's memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch

from inference.engine.assembly import assemble
from inference.engine.changes import Changes
from inference.engine.drafting import add_drafts
from inference.engine.outcome import outcomes
from inference.engine.packing import arrange
from inference.engine.step import RowResult, Step
from inference.engine.types import EngineConfig
from inference.models.interface import CausalModel

_NOTHING = RowResult()


@dataclass(slots=True)
class Seconds:
    """Where the time of all steps so far went."""

    forward: float = 0.0
    sample: float = 0.0
    draft: float = 0.0


class Runner:
    """The only part of the engine that runs the model."""

    def __init__(
        self,
        model: CausalModel,
        config: EngineConfig,
        clock: Callable[[], float] = time.perf_counter,
        changes: Changes | None = None,
    ) -> None:
        self._model = model
        self._module = model.mtp if config.speculate else None
        self._page_size = config.page_size
        self._cache = model.new_cache(pages=config.pages, page_size=config.page_size)
        self._clock = clock
        self.changes = changes or Changes()
        self.seconds = Seconds()

    @property
    def can_draft(self) -> bool:
        """Whether there is a module that guesses tokens."""
        return self._module is not None

    @torch.inference_mode()
    def run(self, step: Step) -> list[RowResult]:
        """One result per row, in the step's order. Raises what torch raises; only the cache changes."""
        clock, model = self._clock, self._model
        began = clock()
        rows = arrange(step.rows)
        batch = assemble(rows, page_size=self._page_size, turn_XR=model.turn_XR)
        batch = self.changes.apply(batch, rows)
        logits_SV, hidden_TD = model.forward(batch, self._cache)
        self.changes.note(batch, rows)
        computed = clock()
        results = outcomes(rows, logits_SV, hidden_TD)
        chosen = clock()
        if step.drafting and self._module is not None:
            add_drafts(
                results, rows, module=self._module, batch=batch, hidden_TD=hidden_TD, cache=self._cache
            )
        self.seconds.forward += computed - began
        self.seconds.sample += chosen - computed
        self.seconds.draft += clock() - chosen
        return [results.get(row.sequence.arrival, _NOTHING) for row in step.rows]

    def close(self) -> None:
        """No more steps; nothing is held here that must be given back."""

    @torch.inference_mode()
    def scrub(self, pages: Iterable[int]) -> None:
        """Zero pages that may hold NaN: a masked weight is 0, and 0 × NaN would reach the next holder."""
        self._cache[:, list(pages)] = 0
