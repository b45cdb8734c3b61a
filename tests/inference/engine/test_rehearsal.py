"""The rehearsal of full steps before a paced engine serves."""

from __future__ import annotations

import dataclasses
from itertools import count

import pytest

from inference.engine.rehearsal import STEPS, full_step_s
from inference.engine.runner import Runner
from inference.engine.step import RowResult, Step
from inference.engine.types import GenerationRequest, SamplingParams
from tests.inference.engine.conftest import Table, serve


class Watched(Runner):
    """Notes how many tokens each step computes."""

    tokens: list[int]

    def run(self, step: Step) -> list[RowResult]:
        self.tokens.append(sum(len(row.tokens) for row in step.rows))
        return super().run(step)


def rehearse(table: Table, **fields: int) -> tuple[float, list[int], Runner]:
    config = dataclasses.replace(table.config, max_running=8, step_token_budget=24, **fields)
    runner = Watched(table.model, config)
    runner.tokens = []
    clock = count(0.0, 0.01)
    found = full_step_s(
        runner,
        config,
        max_model_len=500,
        vocab_size=table.model.config.vocab_size,
        clock=lambda: float(next(clock)),
    )
    return found, runner.tokens, runner


def test_only_full_steps_are_measured(table: Table) -> None:
    seconds, tokens, runner = rehearse(table)
    assert seconds == pytest.approx(0.01, abs=0.02)
    assert seconds > 0
    assert tokens == [24] * STEPS
    assert runner.seconds.forward == 0  # it is not counted as service


def test_a_cache_too_small_for_full_steps_gives_no_period(table: Table) -> None:
    seconds, tokens, _ = rehearse(table, pages=8)
    assert seconds == 0
    assert tokens == []


def test_what_is_served_after_it_is_the_same(table: Table) -> None:
    request = GenerationRequest("r", tuple(range(9, 40)), SamplingParams(max_tokens=12, temperature=0))
    expected = serve(table.engine(), [request])
    _, _, runner = rehearse(table)
    engine = table.engine()
    engine._runner = runner
    assert serve(engine, [request]) == expected
