"""A beat for what the steps bring, so that tokens come at even intervals.

Steps keep to a grid of times one period apart: one that is ready early waits, one that was late is made up
for by those after it, which take less than a period. What they bring is handed on some slack after its place
in the grid, so that most late steps are not noticed. The period is a fifth longer than the mean of the latest
steps, the slack what all but a few in a thousand of them were late. A beat that wavers is none: once enough
steps are known both get longer at once, but shorter only when a quarter would do, so that the beat is that of
the busiest time.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from queue import SimpleQueue
from typing import TYPE_CHECKING, NamedTuple

from inference.engine.wire import Command, Ended, Report, Stepped

if TYPE_CHECKING:
    from inference.engine.loop import Line

LATEST = 512
REVISED_EVERY = 64
HEADROOM = 1.2
LATE_SHARE = 0.003
SLACK_PERIODS = 8
_SWITCH_S = 2e-4  # how long the loop's own Python may keep a thread whose time has come
SETTLING, SETTLED = 0.9, 0.25  # what is wanted, of what there is, before it gets shorter


class Place(NamedTuple):
    """When the next step may begin, and when what this one brought is handed on."""

    go_on_s: float
    release_s: float


class Beat:
    """Finds the place of every step in the grid. Times are seconds of one clock."""

    def __init__(self) -> None:
        self.period_s = 0.0
        self.slack_s = 0.0
        self._steps: deque[float] = deque(maxlen=LATEST)
        self._late: deque[float] = deque(maxlen=4 * LATEST)
        self._unseen = 0
        self._grid_s: float | None = None
        self._went_on_s = 0.0

    def rest(self) -> None:
        """Nobody waits for the token after: the grid begins anew with the next one."""
        self._grid_s = None

    def place(self, ready_s: float) -> Place:
        """The place of a step that is ready at `ready_s`."""
        grid_s = ready_s
        if self._grid_s is not None:
            late_s = 0.0
            if self.period_s:
                grid_s = self._grid_s + self.period_s
                late_s = max(ready_s - grid_s, 0.0)
            if late_s > SLACK_PERIODS * self.period_s:  # lost: no slack makes up for that
                grid_s = ready_s
            self._note(ready_s - self._went_on_s, late_s)
        self._grid_s = grid_s
        self._went_on_s = max(ready_s, grid_s)
        return Place(self._went_on_s, max(self._went_on_s, grid_s + self.slack_s))

    def _note(self, taken_s: float, late_s: float) -> None:
        self._steps.append(taken_s)
        self._late.append(late_s)
        self._unseen += 1
        if self._unseen < REVISED_EVERY:
            return
        self._unseen = 0
        self.period_s = self._steady(self.period_s, HEADROOM * sum(self._steps) / len(self._steps))
        slack_s = sorted(self._late)[-1 - int(LATE_SHARE * len(self._late))]
        self.slack_s = min(self._steady(self.slack_s, slack_s), SLACK_PERIODS * self.period_s)

    def _steady(self, now: float, wanted: float) -> float:
        share = SETTLED if len(self._steps) == LATEST else SETTLING
        return now if share * now <= wanted <= now else wanted


class PacedLine:
    """A line that hands reports on at the beat. A thread does it, while the loop computes what comes next."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._beat = Beat()
        self._queue: SimpleQueue[tuple[float, Report]] = SimpleQueue()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._hand_on, name="beat", daemon=True)
        self._thread.start()
        sys.setswitchinterval(_SWITCH_S)

    def take(self, *, wait: bool) -> list[Command]:
        """As `Line.take`."""
        if wait:
            self._beat.rest()
        return self._line.take(wait=wait)

    def publish(self, report: Report) -> None:
        """Give a report to the thread, and wait for the step's place in the grid."""
        if self._failure is not None:
            raise self._failure
        now = time.perf_counter()
        place = Place(now, now)
        if isinstance(report, Stepped):
            if report.events:
                place = self._beat.place(now)
            else:
                self._beat.rest()
        self._queue.put((place.release_s, report))
        if isinstance(report, Ended):
            self._thread.join()
        elif place.go_on_s > now:
            time.sleep(place.go_on_s - now)

    def _hand_on(self) -> None:
        report: Report | None = None
        try:
            while not isinstance(report, Ended):
                release_s, report = self._queue.get()
                wait_s = release_s - time.perf_counter()
                if wait_s > 0:
                    time.sleep(wait_s)
                self._line.publish(report)
        except Exception as failure:
            self._failure = failure  # raised where the loop can end by it
