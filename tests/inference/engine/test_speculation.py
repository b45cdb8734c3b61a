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


def test_drafting_ends_where_it_does_not_pay_and_is_tried_again_ever_more_rarely() -> None:
    for accepted, drafting_s in ((False, 1.1), (True, 2.1)):
        control = SpeculationControl()
        decided = simulate(control, 4000, rows=1, accepted=accepted, plain_s=1.0, drafting_s=drafting_s)
        # before and after the first trial of the other way, then after 256, 512 and each 1,024 steps
        assert [at for at, drafting in enumerate(decided) if drafting] == [
            start + step for start in (0, 16, 280, 808, 1848, 2888, 3928) for step in range(8)
        ]
        again = simulate(control, 1100, rows=1, accepted=True, plain_s=1.0, drafting_s=1.2)
        assert all(again[-50:])  # the text has changed, and drafts come true now


def test_a_machine_that_is_slow_for_a_while_decides_nothing() -> None:
    control = SpeculationControl()
    simulate(control, 40, rows=1, accepted=True, plain_s=1.0, drafting_s=2.5)
    assert not any(simulate(control, 60, rows=1, accepted=True, plain_s=5.0, drafting_s=12.5))


def test_a_trial_counts_for_nothing_that_found_the_machine_faster() -> None:
    control = SpeculationControl()
    simulate(control, 280, rows=1, accepted=True, plain_s=2.0, drafting_s=5.0)
    trial = simulate(control, 8, rows=1, accepted=True, plain_s=0.8, drafting_s=2.0)
    assert all(trial)
    assert not any(simulate(control, 200, rows=1, accepted=True, plain_s=0.8, drafting_s=2.0))


def test_a_trial_of_drafting_waits_for_prompts_that_the_module_reads() -> None:
    control = SpeculationControl()
    sequence = Sequence(REQUEST, 0, 0)
    simulate(control, 280, rows=1, accepted=True, plain_s=1.0, drafting_s=2.5)
    sequence.computed = sequence.unseen = 9
    missed = Step((Row(sequence, (1,), 5, (), (Draw(PARAMS, 0, 0),)),))
    control.note(missed, [RowResult((7,))], 1.0)
    assert not control.wanted(1, reading=False)
    assert control.wanted(1, reading=True)
    sequence.unseen = 0
    control.note(missed, [RowResult((7,))], 1.0)
    assert control.wanted(1, reading=False)


def test_nothing_is_drafted_where_no_request_may() -> None:
    control = SpeculationControl()
    sequence = Sequence(REQUEST, 0, 0)
    sequence.drafts_allowed = False
    for _ in range(40):
        control.note(Step((Row(sequence, (1,), 5, (), (Draw(PARAMS, 0, 0),)),)), [RowResult((7,))], 1.0)
        assert not control.wanted(1, reading=False)
    assert control.wanted(1, reading=True)  # others may come, and nothing is settled


def test_half_the_rows_must_have_had_a_draft_for_a_step_to_count() -> None:
    control = SpeculationControl()
    one = Row(Sequence(REQUEST, 0, 0), (1,), 5, (), (Draw(PARAMS, 0, 0),))
    two = one._replace(tokens=(1, 2), draws=one.draws * 2)
    for rows, counts in (((two, one, one), False), ((two, one), True)):
        for _ in range(8):
            control.note(Step(rows, drafting=True), [RowResult((7,))] * len(rows), 1.0)
        assert control.wanted(2, reading=False) is not counts  # then it is the other way's turn


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
