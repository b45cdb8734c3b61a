"""Which requests have waited too long, and that nothing else is kept of those that ended."""

from __future__ import annotations

import dataclasses

from hypothesis import given, settings
from hypothesis import strategies as st

from inference.engine.queue import Deadlines
from inference.engine.scheduler import Scheduler
from inference.engine.sequence import Sequence
from inference.engine.types import EngineConfig
from tests.inference.engine.arithmetic import request


def waiting(arrival: int, deadline_s: float | None) -> Sequence:
    one = dataclasses.replace(request(arrival, 4, 2), deadline_s=deadline_s)
    return Sequence(one, arrival, seed=0)


def test_a_request_that_ended_is_not_kept_until_its_deadline() -> None:
    scheduler = Scheduler(EngineConfig(page_size=4, pages=50), ())
    sequences = [waiting(arrival, 1e6) for arrival in range(20)]
    for sequence in sequences:
        scheduler.add(sequence, now_s=1.0)
    scheduler.schedule(2.0)
    for sequence in sequences:
        scheduler.finish(sequence, "cancelled")
    assert len(scheduler.deadlines) == 0


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.one_of(st.none(), st.integers(1, 5)), st.booleans(), st.booleans()), max_size=12),
    st.integers(0, 6),
)
def test_those_are_late_that_were_added_have_not_begun_and_were_not_removed(
    plan: list[tuple[int | None, bool, bool]], now_s: int
) -> None:
    deadlines, expected = Deadlines(), []
    for arrival, (deadline_s, begun, removed) in enumerate(plan):
        sequence = waiting(arrival, deadline_s)
        deadlines.add(sequence)
        sequence.begun = begun
        if removed:
            deadlines.remove(sequence)
            deadlines.remove(sequence)  # twice is fine
        elif deadline_s is not None and deadline_s <= now_s and not begun:
            expected.append((deadline_s, arrival))
    assert [one.arrival for one in deadlines.pop(now_s)] == [arrival for _, arrival in sorted(expected)]
    assert deadlines.pop(now_s) == []
