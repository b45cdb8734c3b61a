"""When drafts are verified, with times that are made up."""

from __future__ import annotations

from inference.engine.sequence import Sequence
from inference.engine.speculation import SpeculationControl
from inference.engine.step import Draw, Row, RowResult, Step
from inference.engine.types import GenerationRequest, SamplingParams

PARAMS = SamplingParams(max_tokens=9)
REQUEST = GenerationRequest("r", (1,), PARAMS)


def simulate(
    control: SpeculationControl, steps: int, *, rows: int, accepted: bool, plain_s: float, drafting_s: float
) -> list[bool]:
    """What the control decided at each of `steps` decode steps of a world with these times."""
    decided = []
    for _ in range(steps):
        drafting = control.wanted(rows, reading=False)
        drawn = 2 if drafting else 1
        row = Row(Sequence(REQUEST, 0, 0), (1,) * drawn, 5, (), (Draw(PARAMS, 0, 0),) * drawn)
        result = RowResult((7,) * (2 if drafting and accepted else 1))
        seconds = drafting_s if drafting else plain_s
        control.note(Step((row,) * rows, drafting), [result] * rows, seconds)
        decided.append(drafting)
    return decided


def test_drafting_goes_on_where_it_brings_more_tokens_a_second() -> None:
    decided = simulate(SpeculationControl(), 1000, rows=1, accepted=True, plain_s=1.0, drafting_s=1.5)
    assert all(decided[:8])
    assert not any(decided[8:16])
    assert sum(decided) > 950


def test_drafting_ends_where_it_does_not_pay_and_is_tried_again() -> None:
    for accepted, drafting_s in ((False, 1.1), (True, 2.1)):
        control = SpeculationControl()
        decided = simulate(control, 1000, rows=1, accepted=accepted, plain_s=1.0, drafting_s=drafting_s)
        assert sum(decided) == 8 + 3 * 8
        again = simulate(control, 600, rows=1, accepted=True, plain_s=1.0, drafting_s=1.2)
        assert all(again[-50:])  # the text has changed, and drafts come true now


def test_each_load_is_its_own() -> None:
    control = SpeculationControl()
    simulate(control, 100, rows=1, accepted=True, plain_s=1.0, drafting_s=1.2)
    simulate(control, 100, rows=32, accepted=True, plain_s=1.0, drafting_s=2.5)
    assert control.wanted(1, reading=False)
    assert not control.wanted(32, reading=False)
    assert not control.wanted(40, reading=False)
    assert control.wanted(3, reading=False)  # nothing is known there


def test_one_step_that_was_held_up_decides_nothing() -> None:
    control = SpeculationControl()
    simulate(control, 40, rows=1, accepted=True, plain_s=1.0, drafting_s=1.5)
    simulate(control, 1, rows=1, accepted=True, plain_s=1.0, drafting_s=500.0)
    assert control.wanted(1, reading=False)


def test_no_trial_is_made_while_prompts_are_read() -> None:
    control = SpeculationControl()
    simulate(control, 8, rows=1, accepted=True, plain_s=1.0, drafting_s=1.5)
    assert control.wanted(1, reading=True)
    assert not control.wanted(1, reading=False)


def test_steps_that_read_prompts_are_not_measured() -> None:
    control = SpeculationControl()
    row = Row(Sequence(REQUEST, 0, 0), (1,), 5, ())
    for _ in range(20):
        control.note(Step((row,), drafting=True), [RowResult()], 9.0)
        control.note(Step((), drafting=True), [], 9.0)
    assert control.wanted(1, reading=False)
