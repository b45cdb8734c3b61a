"""A beat for what the steps bring, so that tokens come at even intervals.

Steps keep to a grid of times one period apart: one that is ready early waits, one that was late is made up
for by those after it, which take less than a period. What they bring is handed on a few periods after its
place in the grid, the slack, so that late steps are not noticed unless they are later than that.

The period is the shortest at which nearly all of the busiest stretch of steps would have been in time. A beat
that wavers is none: it begins with what the fullest steps take (`rehearsal.py`), gets longer at once when
that was too short, and shorter only when half of it would do.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from collections.abc import Sequence as Items
from typing import TYPE_CHECKING, NamedTuple

from inference.alarm import Alarm
from inference.engine.types import EngineConfig
from inference.engine.wire import Command, Ended, Report, Stepped

if TYPE_CHECKING:
    from inference.engine.loop import Line

LATEST = 1024  # steps that are looked at
REVISED_EVERY = 64
SLACK_PERIODS = 4
HEADROOM = 1.1
LOST_SHARE = 0.003  # of the steps may be later than the slack
SETTLED = 0.5  # of the period would do before it gets shorter
_EXACT = 0.01  # of the period
_EARLY_S = 2e-5  # waiting takes longer than that


class Place(NamedTuple):
    """When the next step may begin, and when what this one brought is handed on."""

    go_on_s: float
    release_s: float


def lost_steps(steps_s: Items[float], period_s: float) -> int:
    """How many of these steps, each begun when its predecessor's place allows it, would be later than the
    slack.
    """
    lost, late_s, slack_s = 0, 0.0, SLACK_PERIODS * period_s
    for taken_s in steps_s:
        late_s = max(late_s + taken_s - period_s, 0.0)
        if late_s > slack_s:
            lost, late_s = lost + 1, slack_s
    return lost


def period_for(steps_s: Items[float]) -> float:
    """The shortest period, with some headroom, at which no more than a few of these steps are lost."""
    allowed = int(LOST_SHARE * len(steps_s))
    low, high = 0.0, max(steps_s)
    while high - low > _EXACT * high:
        middle = (low + high) / 2
        if lost_steps(steps_s, middle) > allowed:
            low = middle
        else:
            high = middle
    return HEADROOM * high


class Beat:
    """Finds the place of every step in the grid. Times are seconds of one clock; without a `period_s` to
    begin with the first steps are handed on as they come.
    """

    def __init__(self, period_s: float = 0.0) -> None:
        self.period_s = period_s
        self._steps: deque[float] = deque(maxlen=LATEST)
        self._unseen = 0
        self._grid_s: float | None = None
        self._went_on_s = 0.0

    @property
    def slack_s(self) -> float:
        """How much later than its place in the grid a step is handed on."""
        return SLACK_PERIODS * self.period_s

    def rest(self) -> None:
        """Nobody waits for the token after: the grid begins anew with the next one."""
        self._grid_s = None

    def place(self, ready_s: float) -> Place:
        """The place of a step that is ready at `ready_s`."""
        grid_s = ready_s
        if self._grid_s is not None:
            self._note(ready_s - self._went_on_s)
            # what was lost is handed on at once, and the grid moved by that much
            grid_s = max(self._grid_s + self.period_s, ready_s - self.slack_s)
        self._grid_s = grid_s
        self._went_on_s = max(ready_s, grid_s)
        return Place(self._went_on_s, grid_s + self.slack_s)

    def _note(self, taken_s: float) -> None:
        self._steps.append(taken_s)
        self._unseen += 1
        if self._unseen < REVISED_EVERY:
            return
        self._unseen = 0
        wanted_s = period_for(self._steps)
        full = len(self._steps) == LATEST
        if wanted_s > HEADROOM * self.period_s or (full and wanted_s < SETTLED * self.period_s):
            self.period_s = wanted_s


class PacedLine:
    """A line whose steps keep to the beat, and whose reports say when they are due."""

    def __init__(self, line: Line, period_s: float = 0.0) -> None:
        self._line = line
        self._beat = Beat(period_s)

    def take(self, *, wait: bool) -> list[Command]:
        """As `Line.take`."""
        if wait:
            self._beat.rest()
        return self._line.take(wait=wait)

    def publish(self, report: Report) -> None:
        """Send a report, which the front holds until it is due, and wait for the step's place in the grid."""
        if not isinstance(report, Stepped) or not report.events:
            self._line.publish(report)
            if isinstance(report, Stepped):
                self._beat.rest()
            return
        now = time.perf_counter()
        place = self._beat.place(now)
        self._line.publish(Stepped(report.events, report.stats, place.release_s))
        wait_s = place.go_on_s - time.perf_counter()
        if wait_s > 0:
            time.sleep(wait_s)


def on_beat(line: Line, config: EngineConfig, period_s: float) -> Line:
    """The line that an engine's steps go through: at the beat where the engine is paced."""
    return PacedLine(line, period_s) if config.paced else line


class Holding:
    """The front's side: reports wait here until they are due, in order. It lives on the event loop, whose
    process has the time: the engine's is in the middle of a step when its last one is due.
    """

    def __init__(self, hand_on: Callable[[Stepped | Ended], None]) -> None:
        self._hand_on = hand_on
        self._alarm = Alarm(self._look)
        self._held: deque[Stepped | Ended] = deque()

    def take(self, report: Stepped | Ended) -> None:
        """Hand the report on when it is due and all before it have been."""
        self._held.append(report)
        if len(self._held) == 1:
            self._look()

    def forget(self, request_id: str) -> None:
        """Hand on nothing more of a request: its name may be another's before that was due."""
        for report in self._held:
            report.events[:] = [event for event in report.events if event.request_id != request_id]

    def flush(self) -> None:
        """Hand everything on now."""
        while self._held:
            self._hand_on(self._held.popleft())

    def close(self) -> None:
        """Hand on nothing more."""
        self._held.clear()
        self._alarm.close()

    def _look(self) -> None:
        while self._held and (due_s := _due_s(self._held[0])) <= time.perf_counter() + _EARLY_S:
            self._hand_on(self._held.popleft())
        if self._held:
            self._alarm.set(due_s)


def _due_s(report: Stepped | Ended) -> float:
    return report.due_s if isinstance(report, Stepped) else 0.0
