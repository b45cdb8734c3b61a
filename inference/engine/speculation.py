"""Whether drafting pays: both ways are measured, at each load apart, and the faster one is taken.

Rules. Loads are powers of two of running requests. A load begins with drafting, then tries without, `_TRIAL`
measured steps each; from then on the way that brought more tokens a second is taken, and every `_PERIOD`
steps the other is tried again for `_TRIAL` steps, because texts and contexts change. Only steps in which all
rows decode are measured. While prompts are read no trial is made: what the module misses of a prompt spoils
its guesses later.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence as Items
from dataclasses import dataclass, field
from statistics import median

from inference.engine.step import RowResult, Step

_TRIAL = 8
_PERIOD = 256
_LATEST = 16


def _latest() -> deque[float]:
    return deque(maxlen=_LATEST)


@dataclass(slots=True)
class _Pace:
    """What the latest steps of one kind brought."""

    tokens: deque[float] = field(default_factory=_latest)
    seconds: deque[float] = field(default_factory=_latest)

    def add(self, tokens: int, seconds: float) -> None:
        self.tokens.append(tokens)
        self.seconds.append(seconds)

    @property
    def known(self) -> bool:
        return len(self.seconds) >= _TRIAL

    @property
    def rate(self) -> float:
        """Tokens a second: on average over the middle time of a step, as some are held up from outside."""
        return sum(self.tokens) / len(self.tokens) / (median(self.seconds) or 1.0)


@dataclass(slots=True)
class _Load:
    with_drafts: _Pace = field(default_factory=_Pace)
    without: _Pace = field(default_factory=_Pace)
    steps: int = 0

    @property
    def pays(self) -> bool:
        """The settled way; drafting until both are known."""
        if not (self.with_drafts.known and self.without.known):
            return True
        return self.with_drafts.rate > self.without.rate

    @property
    def trial(self) -> bool:
        """Whether the way that is not the settled one has its turn."""
        if not self.with_drafts.known:
            return False
        return not self.without.known or self.steps % _PERIOD >= _PERIOD - _TRIAL


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
