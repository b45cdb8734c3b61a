"""The beat: even intervals as long as steps keep within what the latest ones took."""

from __future__ import annotations

from itertools import pairwise
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from inference.engine.pace import LATEST, REVISED_EVERY, Pacer


class Clock:
    """A time that passes only when it is told to."""

    def __init__(self) -> None:
        self.now = 5.0

    def __call__(self) -> float:
        return self.now

    def pass_by(self, seconds: float) -> None:
        self.now += seconds


def paced(clock: Clock) -> Pacer:
    return Pacer(clock, clock.pass_by)


def run(pacer: Pacer, clock: Clock, steps: list[float]) -> list[float]:
    """Intervals between reports whose steps take so long."""
    times = []
    for taken in steps:
        clock.pass_by(taken)
        pacer.hold()
        times.append(clock.now)
    return [after - before for before, after in pairwise(times)]


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000), st.floats(0.01, 0.25))
def test_intervals_are_even_whatever_the_steps_take(seed: int, spread: float) -> None:
    rng, clock = Random(seed), Clock()
    pacer = paced(clock)
    steps = [0.01 * rng.lognormvariate(0, spread) for _ in range(2 * LATEST)]
    run(pacer, clock, steps[:LATEST])
    gaps = sorted(run(pacer, clock, steps[LATEST:]))
    assert gaps[int(0.99 * len(gaps)) - 1] <= 1.1 * gaps[len(gaps) // 2]
    assert gaps[len(gaps) // 2] <= 1.2 * sorted(steps)[int(0.995 * len(steps))]


def test_few_slow_steps_come_late_and_do_not_slow_the_others() -> None:
    clock = Clock()
    pacer = paced(clock)
    gaps = run(pacer, clock, ([0.01] * 999 + [0.5]) * 4)
    assert sum(gap > 0.1 for gap in gaps) == 4
    assert pacer.period_s < 0.011


def test_the_beat_follows_when_steps_become_slower_or_faster() -> None:
    clock = Clock()
    pacer = paced(clock)
    run(pacer, clock, [0.01] * (2 * REVISED_EVERY))
    assert 0.01 <= pacer.period_s < 0.011
    run(pacer, clock, [0.02] * (2 * REVISED_EVERY))
    assert 0.02 <= pacer.period_s < 0.021
    run(pacer, clock, [0.01] * (LATEST + REVISED_EVERY))
    assert pacer.period_s < 0.011


def test_nothing_waits_before_steps_are_known_nor_after_a_rest() -> None:
    clock = Clock()
    pacer = paced(clock)
    assert max(run(pacer, clock, [0.01, 0.001, 0.002])) < 0.003
    run(pacer, clock, [0.01] * (2 * REVISED_EVERY))
    pacer.rest()
    clock.pass_by(0.001)
    before = clock.now
    pacer.hold()
    assert clock.now == before
