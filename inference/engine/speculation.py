"""Whether drafting pays: both ways are measured, at each load apart, and the faster one is taken.

Rules. Loads are powers of two of running requests. A load begins with drafting, then tries without, `_TRIAL`
measured steps each; from then on the way that brought more tokens a second is taken, and every `_PERIOD`
steps the other is tried again for `_TRIAL` steps, because texts and contexts change. Only steps in which all
rows decode are measured. While prompts are read no trial is made: what the module misses of a prompt spoils
its guesses later.
"""

from __future__ import annotations

from collections.abc import Sequence as Items
from dataclasses import dataclass, field

from inference.engine.step import RowResult, Step

_TRIAL = 8
_PERIOD = 256
_WEIGHT = 1 / 16  # of the latest step in the averages


@dataclass(slots=True)
class _Pace:
    """Tokens and seconds of a step of one kind, on average of late."""

    steps: int = 0
    tokens: float = 0.0
    seconds: float = 0.0

    def add(self, tokens: int, seconds: float) -> None:
        self.steps += 1
        weight = max(1 / self.steps, _WEIGHT)
        self.tokens += weight * (tokens - self.tokens)
        self.seconds += weight * (seconds - self.seconds)

    @property
    def rate(self) -> float:
        return self.tokens / self.seconds if self.seconds > 0 else 0.0


@dataclass(slots=True)
class _Load:
    with_drafts: _Pace = field(default_factory=_Pace)
    without: _Pace = field(default_factory=_Pace)
    steps: int = 0

    @property
    def pays(self) -> bool:
        """The settled way; drafting until both are known."""
        if min(self.with_drafts.steps, self.without.steps) < _TRIAL:
            return True
        return self.with_drafts.rate > self.without.rate

    @property
    def trial(self) -> bool:
        """Whether the way that is not the settled one has its turn."""
        if self.with_drafts.steps < _TRIAL:
            return False
        return self.without.steps < _TRIAL or self.steps % _PERIOD >= _PERIOD - _TRIAL


class SpeculationControl:
    """Decides before each step, learns after it."""

    def __init__(self) -> None:
        self._loads: dict[int, _Load] = {}

    def wanted(self, running: int, *, reading: bool) -> bool:
        """Whether the next step drafts, with so many `running` requests; `reading`: prompts are read in it,
        or may be.
        """
        load = self._load(running)
        return load.pays != (load.trial and not reading)

    def note(self, step: Step, results: Items[RowResult], seconds: float) -> None:
        """Learn from a step that took so many seconds."""
        drawn = [len(row.draws) for row in step.rows]
        if not drawn or min(drawn) == 0:
            return
        load = self._load(len(drawn))
        load.steps += 1
        if not step.drafting:
            load.without.add(len(drawn), seconds)
        elif max(drawn) > 1:
            load.with_drafts.add(sum(len(result.tokens) for result in results), seconds)

    def _load(self, running: int) -> _Load:
        return self._loads.setdefault(max(running, 1).bit_length(), _Load())
