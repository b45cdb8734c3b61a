"""The beat: even intervals, whatever the steps take."""

from __future__ import annotations

from itertools import pairwise
from queue import SimpleQueue
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.engine.loop import EngineLoop, FrontGoneError
from inference.engine.pace import HEADROOM, LATEST, REVISED_EVERY, SLACK_PERIODS, Beat, PacedLine
from inference.engine.types import EngineStats, GenerationRequest, SamplingParams, TokenEvent
from inference.engine.wire import Command, Ended, Report, Stepped, Stop, Submit
from tests.inference.engine.conftest import Table

STATS = EngineStats(0, 0, 1, 1, 0, 0, 1)


def run(beat: Beat, steps: list[float]) -> list[float]:
    """Intervals between what is handed on, when steps take so long, after a rest."""
    beat.rest()
    now, released = 5.0, []
    for taken in steps:
        place = beat.place(now + taken)
        assert place.go_on_s >= now + taken
        assert place.release_s >= place.go_on_s
        now = place.go_on_s
        released.append(place.release_s)
    return [after - before for before, after in pairwise(released)]


def spread(gaps: list[float]) -> float:
    ranked = sorted(gaps)
    return ranked[int(0.99 * len(ranked)) - 1] / ranked[len(ranked) // 2]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.floats(0.01, 0.4))
def test_intervals_are_even_though_steps_vary(seed: int, deviation: float) -> None:
    rng, beat = Random(seed), Beat()
    steps = [0.01 * rng.lognormvariate(0, deviation) for _ in range(8 * LATEST)]
    run(beat, steps[: 4 * LATEST])
    gaps = run(beat, steps[4 * LATEST :])
    assert spread(gaps) <= 1.1
    assert sum(gaps) / len(gaps) <= 1.5 * sum(steps) / len(steps)  # the mean is not given up for it


def test_steps_that_are_held_up_now_and_then_are_not_noticed() -> None:
    beat, rng = Beat(), Random(3)
    steps = [0.01 + 0.04 * (rng.random() < 0.02) for _ in range(12 * LATEST)]
    run(beat, steps[: 6 * LATEST])
    assert spread(run(beat, steps[6 * LATEST :])) <= 1.1
    assert beat.period_s < 0.02
    assert 0.03 < beat.slack_s <= SLACK_PERIODS * beat.period_s


def test_the_beat_is_that_of_the_busiest_time() -> None:
    beat = Beat()
    run(beat, [0.02] * (2 * REVISED_EVERY))
    assert beat.period_s == pytest.approx(HEADROOM * 0.02)
    run(beat, [0.01] * (LATEST // 2))  # not settled yet
    assert beat.period_s < HEADROOM * 0.015
    run(beat, [0.02] * (2 * LATEST))
    for seconds in (0.01, 0.02, 0.006):
        run(beat, [seconds] * (2 * LATEST))
        assert beat.period_s == pytest.approx(HEADROOM * 0.02)
    run(beat, [0.001] * (2 * LATEST))
    assert 0.001 < beat.period_s < HEADROOM * 0.006


def test_a_step_that_is_lost_starts_a_new_grid() -> None:
    beat = Beat()
    run(beat, [0.01] * (2 * REVISED_EVERY))
    assert beat.place(1000.0).go_on_s == 1000.0
    assert beat.place(1000.001).go_on_s == pytest.approx(1000.0 + beat.period_s)


def test_after_a_rest_nothing_waits_for_the_grid() -> None:
    beat = Beat()
    run(beat, [0.01] * (2 * REVISED_EVERY))
    beat.rest()
    assert beat.place(6.0).go_on_s == 6.0


class Front:
    """A line whose front asks for some requests, takes all reports, and may go away."""

    def __init__(self, commands: list[Command], *, gone_after: int | None = None) -> None:
        self._commands: SimpleQueue[Command] = SimpleQueue()
        for command in commands:
            self._commands.put(command)
        self._gone_after = gone_after
        self.reports: list[Report] = []

    def take(self, *, wait: bool) -> list[Command]:
        if wait or not self._commands.empty():
            return [self._commands.get() if not self._commands.empty() else Stop()]
        return []

    def publish(self, report: Report) -> None:
        if self._gone_after is not None and len(self.reports) >= self._gone_after:
            raise FrontGoneError
        self.reports.append(report)


def events(front: Front) -> list[TokenEvent]:
    return [event for report in front.reports if isinstance(report, Stepped) for event in report.events]


def requests() -> list[Command]:
    params = SamplingParams(max_tokens=30, temperature=0, ignore_eos=True)
    return [Submit(GenerationRequest(f"r{i}", tuple(range(9, 20 + i)), params)) for i in range(3)]


def test_a_paced_loop_reports_the_same_in_the_same_order_and_all_of_it(table: Table) -> None:
    fronts = Front(requests()), Front(requests())
    EngineLoop(table.engine(), fronts[0]).run()
    EngineLoop(table.engine(), PacedLine(fronts[1])).run()
    assert events(fronts[1]) == events(fronts[0])
    assert len(events(fronts[1])) == 90
    assert [type(report) for report in fronts[1].reports[-1:]] == [Ended]


def test_a_front_that_is_gone_ends_the_paced_loop(table: Table) -> None:
    front = Front(requests(), gone_after=4)
    with pytest.raises(FrontGoneError):
        EngineLoop(table.engine(), PacedLine(front)).run()
    assert len(front.reports) == 4
