"""Whether drafting pays: both ways are measured, at each load apart, and the faster one is taken.

Rules. Loads are powers of two of running requests. A load begins with drafting; the way in use is left
alone for `_PERIOD` measured steps (at first `_TRIAL`), then the other one has its trial of `_TRIAL` steps,
because texts and contexts change. After it the way in use is measured once more: the other is taken if it
brought more tokens a second than that one before and after, for the machine's own rate changes, too. Each
trial that changes nothing doubles the time to the next, up to `_PERIOD_MAX`. Only steps in which all rows
decode are measured, and of those that draft only the ones in which half the rows had a draft to check. The
module cannot go on with what it has not read: a trial of drafting begins with prompts, and one without
drafts waits until none is read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence as Items
from dataclasses import dataclass, field
from statistics import median

from inference.engine.rows import may_draft
from inference.engine.step import RowResult, Step

_TRIAL = 8
_PERIOD = 256
_PERIOD_MAX = 1024


def _latest() -> deque[float]:
    return deque(maxlen=_TRIAL)


@dataclass(slots=True)
class _Pace:
    """What the latest steps of one kind brought."""

    tokens: deque[float] = field(default_factory=_latest)
    seconds: deque[float] = field(default_factory=_latest)

    def add(self, tokens: int, seconds: float) -> None:
        self.tokens.append(tokens)
        self.seconds.append(seconds)

    @property
    def rate(self) -> float:
        """Tokens a second: on average over the middle time of a step, as some are held up from outside."""
        return sum(self.tokens) / len(self.tokens) / (median(self.seconds) or 1.0)


@dataclass(slots=True)
class _Load:
    """`pays`: the way in use; `rest` measured steps of it until the other has its trial, or after that until
    the two are compared; `tried` steps of that trial so far; `before`: the rate in use when it began.
    `some` and `half` of the requests may draft, as far as is known.
    """

    with_drafts: _Pace = field(default_factory=_Pace)
    without: _Pace = field(default_factory=_Pace)
    pays: bool = True
    period: int = _PERIOD // 2
    rest: int = _TRIAL
    tried: int = 0
    before: float = 0.0
    some: bool = True
    half: bool = True

    def wanted(self, reading: bool) -> bool:
        due = self.rest <= 0
        return reading or (self.some and not due) if self.pays else due and (reading or self.half)

    def note(self, drafting: bool, tokens: int, seconds: float) -> None:
        """A measured step."""
        (self.with_drafts if drafting else self.without).add(tokens, seconds)
        if drafting == self.pays:
            self.rest -= 1
            if self.tried == _TRIAL and self.rest == 0:
                self._settle()
        elif self.rest <= 0:
            if self.tried == 0:
                self.before = self._used.rate
            self.tried += 1
            if self.tried == _TRIAL:
                self.rest = _TRIAL

    @property
    def _used(self) -> _Pace:
        return self.with_drafts if self.pays else self.without

    def _settle(self) -> None:
        """After a trial."""
        other = self.without if self.pays else self.with_drafts
        if other.rate > max(self.before, self._used.rate):
            self.pays, self.period = not self.pays, _PERIOD
        else:
            self.period = min(2 * self.period, _PERIOD_MAX)
        self.rest, self.tried = self.period, 0


class SpeculationControl:
    """Decides before each step, learns after it."""

    def __init__(self) -> None:
        self._loads: dict[int, _Load] = {}

    def wanted(self, running: int, *, reading: bool) -> bool:
        """Whether the next step drafts, with so many `running` requests; `reading`: prompts are read in it,
        or may be.
        """
        return self._load(running).wanted(reading)

    def note(self, step: Step, results: Items[RowResult], seconds: float) -> None:
        """Learn from a step that took so many seconds."""
        if not step.rows:
            return
        load, rows = self._load(len(step.rows)), len(step.rows)
        if load.pays or load.rest <= 1:  # else nobody asks
            able = sum(may_draft(row.sequence) for row in step.rows)
            load.some, load.half = able > 0, 2 * able >= rows
        if not all(len(row.draws) == len(row.tokens) for row in step.rows):
            return
        if not step.drafting:
            load.note(False, rows, seconds)
        elif 2 * sum(len(row.draws) > 1 for row in step.rows) >= rows:
            load.note(True, sum(len(result.tokens) for result in results), seconds)

    def _load(self, running: int) -> _Load:
        return self._loads.setdefault(max(running, 1).bit_length(), _Load())
