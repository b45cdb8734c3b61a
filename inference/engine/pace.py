"""A beat for what the steps bring, so that tokens come at even intervals.

The steps themselves run as fast as they can; only handing on what they brought waits for the beat. Its
period follows the slowest of the latest steps, all but a few in a thousand: these few come late, all others
exactly on time. What is given up is the difference between that period and the mean step.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

LATEST = 4096
REVISED_EVERY = 64
LATE_SHARE = 0.005
_MARGIN = 1.01
_STEADY = 0.9  # what shortens the period by less than a tenth is let be: a beat that wavers is none
_NEVER = float("-inf")


class Pacer:
    """Holds back every report until one period after the report before it.

    `clock` counts seconds, `sleep` waits for some. There is no period before `REVISED_EVERY` steps are known.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._latest: deque[float] = deque(maxlen=LATEST)
        self._unseen = 0
        self._handed_on = _NEVER
        self.period_s = 0.0

    def rest(self) -> None:
        """Nobody waits for a token after those that were handed on: the next ones go at once."""
        self._handed_on = _NEVER

    def hold(self) -> None:
        """Wait until it is time to hand on what a step has brought."""
        ready = self._clock()
        if self._handed_on != _NEVER:
            self._note(ready - self._handed_on)
            wait = self._handed_on + self.period_s - ready
            if wait > 0:
                self._sleep(wait)
        self._handed_on = self._clock()

    def _note(self, taken_s: float) -> None:
        """A step was ready so long after the one before it was handed on."""
        self._latest.append(taken_s)
        self._unseen += 1
        if self._unseen >= REVISED_EVERY:
            self._unseen = 0
            ranked = sorted(self._latest)
            wanted = _MARGIN * ranked[-1 - int(LATE_SHARE * len(ranked))]
            if not _STEADY * self.period_s < wanted < self.period_s:
                self.period_s = wanted
