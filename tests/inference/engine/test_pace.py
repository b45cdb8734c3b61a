"""The beat: even intervals, whatever the steps take."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from queue import SimpleQueue
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.engine import pace
from inference.engine.loop import EngineLoop, FrontGoneError
from inference.engine.pace import (
    HEADROOM,
    LATEST,
    REVISED_EVERY,
    SLACK_PERIODS,
    Beat,
    Holding,
    PacedLine,
    Place,
    lost_steps,
    period_for,
)
from inference.engine.types import EngineStats, GenerationRequest, SamplingParams, TokenEvent
from inference.engine.wire import Command, Ended, Report, Stepped, Stop, Submit
from tests.inference.engine.conftest import Table

STATS = EngineStats(0, 0, 1, 1, 0, 0, 1)
STEPS = st.lists(st.floats(1e-4, 0.2), min_size=2, max_size=80)


def places(beat: Beat, steps: list[float]) -> list[tuple[float, Place]]:
    """When steps that take so long are ready, and their places, after a rest."""
    beat.rest()
    now, found = 5.0, []
    for taken in steps:
        place = beat.place(now + taken)
        found.append((now + taken, place))
        now = place.go_on_s
    return found


def gaps(found: list[tuple[float, Place]]) -> list[float]:
    return [after.release_s - before.release_s for (_, before), (_, after) in pairwise(found)]


@settings(max_examples=60, deadline=None)
@given(STEPS, st.floats(0.0, 0.1))
def test_nothing_is_handed_on_before_it_is_ready_nor_before_what_came_earlier(
    steps: list[float], period: float
) -> None:
    found = places(Beat(period), steps)
    for ready, place in found:
        assert place.go_on_s >= ready
        assert place.release_s >= ready - 1e-9
    assert all(gap >= -1e-9 for gap in gaps(found))


@settings(max_examples=60, deadline=None)
@given(STEPS, st.floats(0.001, 0.1))
def test_an_interval_is_a_period_unless_the_slack_is_used_up(steps: list[float], period: float) -> None:
    steps = steps[:REVISED_EVERY]
    found = places(Beat(period), steps)
    longer = [gap for gap in gaps(found) if gap > period + 1e-9]
    assert all(gap >= period - 1e-9 for gap in gaps(found))
    assert len(longer) <= lost_steps(steps[1:], period * (1 - 1e-9))
    assert max(longer, default=0) <= max(steps) + 1e-9
    if lost_steps(steps[1:], period) == 0:
        assert not [gap for gap in longer if gap > period * (1 + 1e-6)]


def test_steps_that_are_held_up_now_and_then_are_not_noticed() -> None:
    beat, rng = Beat(0.012), Random(3)
    steps = [0.01 + 0.03 * (rng.random() < 0.02) for _ in range(2 * LATEST)]
    uneven = [gap for gap in gaps(places(beat, steps)) if gap > 1.001 * 0.012]
    assert len(uneven) <= 0.003 * len(steps)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.floats(0.01, 0.5))
def test_a_period_is_found_at_which_steps_are_in_time(seed: int, deviation: float) -> None:
    rng = Random(seed)
    steps = [0.01 * rng.lognormvariate(0, deviation) for _ in range(LATEST)]
    period = period_for(steps)
    assert lost_steps(steps, period) <= 0.003 * len(steps)
    assert lost_steps(steps, 0.95 * period / HEADROOM) > 0.003 * len(steps)
    assert period <= 1.7 * sum(steps) / len(steps)  # the mean is not given up for it


def test_the_busiest_stretch_sets_the_period() -> None:
    """Prompts come in bursts: 50 steps in a row that read some, then 200 that read none."""
    steps = ([0.04] * 50 + [0.01] * 200) * 4
    found = period_for(steps)
    assert 50 / (50 + SLACK_PERIODS) * 0.04 <= found <= HEADROOM * 0.04 * 1.01
    assert gaps(places(Beat(found), steps)) == pytest.approx([found] * (len(steps) - 1))


def test_the_beat_gets_longer_at_once_and_shorter_only_when_half_would_do() -> None:
    beat = Beat(0.01)
    places(beat, [0.02] * (REVISED_EVERY + 1))
    longest = beat.period_s
    assert longest == pytest.approx(HEADROOM * 0.02, rel=0.1)
    places(beat, [0.012] * (2 * LATEST))
    assert beat.period_s == longest
    places(beat, [0.005] * (2 * LATEST))
    assert beat.period_s == pytest.approx(HEADROOM * 0.005, rel=0.1)


def test_a_step_that_is_lost_is_handed_on_at_once_and_those_after_it_a_period_apart() -> None:
    beat = Beat(0.01)
    steps = [0.005] * 4 + [1.0] + [0.005] * 20
    found = places(beat, steps)
    ready, lost = found[4]
    assert lost == (ready, pytest.approx(ready))
    assert gaps(found)[4:] == pytest.approx([0.01] * 20)
    made_up = [place.go_on_s - ready for ready, place in found[5:]]
    assert made_up[0] == 0  # it is made up for without a pause
    assert made_up[-1] == pytest.approx(0.005)


def test_after_a_rest_nothing_waits_for_the_grid() -> None:
    beat = Beat(0.01)
    places(beat, [0.01] * 10)
    beat.rest()
    assert beat.place(6.0) == (6.0, 6.0 + beat.slack_s)


def test_a_beat_without_a_period_finds_one() -> None:
    beat = Beat()
    assert gaps(places(beat, [0.01, 0.03, 0.02])) == pytest.approx([0.03, 0.02])
    places(beat, [0.02] * REVISED_EVERY)
    assert 0.015 < beat.period_s < 0.025


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


def events(reports: list[Report]) -> list[TokenEvent]:
    return [event for report in reports if isinstance(report, Stepped) for event in report.events]


def requests() -> list[Command]:
    params = SamplingParams(max_tokens=30, temperature=0, ignore_eos=True)
    return [Submit(GenerationRequest(f"r{i}", tuple(range(9, 20 + i)), params)) for i in range(3)]


def test_a_paced_loop_reports_the_same_in_the_same_order_and_all_of_it(table: Table) -> None:
    fronts = Front(requests()), Front(requests())
    EngineLoop(table.engine(), fronts[0]).run()
    EngineLoop(table.engine(), PacedLine(fronts[1], 1e-4)).run()
    assert events(fronts[1].reports) == events(fronts[0].reports)
    assert len(events(fronts[1].reports)) == 90
    assert isinstance(fronts[1].reports[-1], Ended)
    due = [one.due_s for one in fronts[1].reports if isinstance(one, Stepped) and one.events]
    assert due == sorted(due)
    assert due[0] > 0


def test_a_front_that_is_gone_ends_the_paced_loop(table: Table) -> None:
    front = Front(requests(), gone_after=4)
    with pytest.raises(FrontGoneError):
        EngineLoop(table.engine(), PacedLine(front)).run()
    assert len(front.reports) == 4


def test_a_front_holds_reports_until_they_are_due_and_keeps_their_order() -> None:
    reports = [Stepped([], STATS, due) for due in (0.0, 10.0, 20.0, 20.0)] + [Ended([], STATS, "cancelled")]

    async def hold(clock: list[float]) -> list[tuple[float, Report]]:
        handed_on: list[tuple[float, Report]] = []
        holding = Holding(lambda report: handed_on.append((clock[0], report)))
        for report in reports:
            holding.take(report)
        for now in (9.0, 10.0, 15.0, 20.0):
            clock[0] = now
            holding._look()
        return handed_on

    now = [5.0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pace.time, "perf_counter", lambda: now[0])
        found = asyncio.run(hold(now))
    assert [at for at, _ in found] == [5.0, 10.0, 20.0, 20.0, 20.0]
    assert all(report is given for (_, report), given in zip(found, reports, strict=True))


def test_nothing_more_comes_of_a_request_that_was_cancelled() -> None:
    async def hold() -> list[str]:
        handed_on: list[str] = []
        holding = Holding(lambda report: handed_on.extend(event.request_id for event in report.events))
        for due in (1e12, 2e12):
            tokens = [TokenEvent(name, "x", (9,), None, 1, 0, 1) for name in ("a", "b", "c")]
            holding.take(Stepped(tokens, STATS, due))
        holding.forget("b")
        holding.flush()
        return handed_on

    assert asyncio.run(hold()) == ["a", "c"] * 2


def test_what_is_held_is_handed_on_when_the_engine_is_gone() -> None:
    async def hold() -> list[Report]:
        handed_on: list[Report] = []
        holding = Holding(handed_on.append)
        for due in (1e12, 2e12):
            holding.take(Stepped([], STATS, due))
        assert handed_on == []
        holding.flush()
        return handed_on

    assert [report.due_s for report in asyncio.run(hold()) if isinstance(report, Stepped)] == [1e12, 2e12]
