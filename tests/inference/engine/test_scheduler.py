"""The scheduler against a model made of arithmetic: invariants after every step, and the same tokens in the
end.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.engine.pages import PagePool
from inference.engine.scheduler import Scheduler
from inference.engine.sequence import Sequence
from inference.engine.step import Row, RowResult, Step
from inference.engine.types import EngineConfig, GenerationRequest, SamplingParams

EOS = 0


def request(number: int, prompt: int, max_tokens: int) -> GenerationRequest:
    tokens = tuple((number * 31 + i * 7) % 90 + 10 for i in range(prompt))
    return GenerationRequest(f"r{number}", tokens, SamplingParams(max_tokens=max_tokens))


def next_token(tokens: list[int]) -> int:
    """A model: the next token depends on all before it; one in fifteen ends the sequence."""
    value = 0
    for token in tokens:
        value = (value * 131 + token + 1) % 1_000_003
    return value % 100 if value % 15 else EOS


def continuation(wanted: GenerationRequest) -> list[int]:
    tokens = list(wanted.prompt_token_ids)
    while len(tokens) < len(wanted.prompt_token_ids) + wanted.params.max_tokens:
        tokens.append(next_token(tokens))
        if tokens[-1] == EOS:
            break
    return tokens


@dataclass
class Fake:
    """Remembers, page by page, which tokens were written where, and computes from that memory alone."""

    page_size: int
    memory: dict[int, int] = field(default_factory=dict)

    def run(self, step: Step) -> list[RowResult]:
        return [self._run_row(row) for row in step.rows]

    def _run_row(self, row: Row) -> RowResult:
        assert len(row.pages) >= -(-row.end // self.page_size)
        for offset, token in enumerate(row.tokens):
            self.memory[self._slot(row, row.start + offset)] = token
        if not row.draws:
            return RowResult()
        return RowResult((next_token([self.memory[self._slot(row, i)] for i in range(row.end)]),))

    def _slot(self, row: Row, position: int) -> int:
        return row.pages[position // self.page_size] * self.page_size + position % self.page_size


def check(scheduler: Scheduler, step: Step, config: EngineConfig) -> None:
    running = scheduler.running
    scheduler.check()
    assert len(running) <= config.max_running
    assert sum(len(row.tokens) for row in step.rows) <= config.step_token_budget
    for row in step.rows:
        sequence = row.sequence
        assert row.start == sequence.computed
        assert list(row.tokens) == sequence.tokens[row.start : row.end]
        assert bool(row.draws) == (row.end == len(sequence.tokens))
    scheduled = {row.sequence.arrival for row in step.rows}
    assert all(s.arrival in scheduled for s in running if s.pending == 1), (
        "a decoding request was passed over"
    )


@st.composite
def workloads(draw: st.DrawFn) -> tuple[EngineConfig, list[tuple[int, int]], list[tuple[str, int]]]:
    page_size = draw(st.integers(1, 5))
    pages = draw(st.integers(2, 14))
    max_running = draw(st.integers(1, 5))
    budget = draw(st.integers(max_running, max_running + 12))
    config = EngineConfig(page_size=page_size, pages=pages, max_running=max_running, step_token_budget=budget)
    room = page_size * pages
    sizes = []
    for _ in range(draw(st.integers(1, 9))):
        prompt = draw(st.integers(1, room - 1))
        sizes.append((prompt, draw(st.integers(1, room - prompt))))
    actions = st.tuples(st.sampled_from(["submit", "step", "step", "cancel"]), st.integers(0, 8))
    return config, sizes, draw(st.lists(actions, max_size=40))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(workloads())
def test_no_page_is_lost_and_every_request_gets_its_own_tokens(
    workload: tuple[EngineConfig, list[tuple[int, int]], list[tuple[str, int]]],
) -> None:
    config, sizes, actions = workload
    scheduler, fake = Scheduler(config, {EOS}), Fake(config.page_size)
    sequences: list[Sequence] = []

    def submit() -> None:
        number = len(sequences)
        if number < len(sizes):
            sequences.append(Sequence(request(number, *sizes[number]), number, seed=0))
            scheduler.add(sequences[-1])

    def step() -> None:
        chosen = scheduler.schedule()
        check(scheduler, chosen, config)
        assert bool(chosen.rows) == scheduler.has_work, "work is there and nothing moves"
        scheduler.record(chosen, fake.run(chosen))

    for action, number in actions:
        if action == "submit":
            submit()
        elif action == "step":
            step()
        elif number < len(sequences) and sequences[number].finish_reason is None:
            scheduler.finish(sequences[number], "cancelled")
    while len(sequences) < len(sizes):
        submit()
    for _ in range(5000):
        if not scheduler.has_work:
            break
        step()
    assert not scheduler.has_work, "the requests do not finish"
    assert scheduler.pages.free == config.pages
    for sequence in sequences:
        if sequence.finish_reason != "cancelled":
            assert sequence.tokens == continuation(sequence.request)
            ended = sequence.tokens[-1] == EOS and sequence.completion_tokens
            assert sequence.finish_reason == ("stop" if ended else "length")


def make(config: EngineConfig, *sizes: tuple[int, int]) -> tuple[Scheduler, list[Sequence]]:
    scheduler = Scheduler(config, ())
    sequences = [Sequence(request(i, *size), i, seed=0) for i, size in enumerate(sizes)]
    for sequence in sequences:
        scheduler.add(sequence)
    return scheduler, sequences


def run(scheduler: Scheduler) -> list[tuple[int, int]]:
    """One step with token 50 for everybody; returns (arrival, tokens) of its rows."""
    step = scheduler.schedule()
    scheduler.record(step, [RowResult((50,) if row.draws else ()) for row in step.rows])
    return [(row.sequence.arrival, len(row.tokens)) for row in step.rows]


def test_decoding_goes_on_while_a_long_prompt_is_read_in_chunks() -> None:
    config = EngineConfig(page_size=4, pages=50, max_running=4, step_token_budget=8)
    scheduler, _ = make(config, (3, 9), (20, 2), (2, 2))
    assert run(scheduler) == [(0, 3), (1, 5)]
    assert run(scheduler) == [(0, 1), (1, 7)]
    assert run(scheduler) == [(0, 1), (1, 7)]
    assert run(scheduler) == [
        (0, 1),
        (1, 1),
        (2, 2),
    ]  # the prompt's last token leaves room for the next request


def test_a_full_cache_queues() -> None:
    config = EngineConfig(page_size=4, pages=4, max_running=8, step_token_budget=64)
    scheduler, sequences = make(config, (7, 5), (7, 2), (7, 2))
    assert run(scheduler) == [
        (0, 7)
    ]  # two pages for the first, one of growth set aside: no room for the second
    for _ in range(4):
        assert run(scheduler) == [(0, 1)]
    assert sequences[0].finish_reason == "length"
    assert run(scheduler) == [(1, 7)]


def test_requests_that_fit_exactly_run_together() -> None:
    config = EngineConfig(page_size=2, pages=4, max_running=2, step_token_budget=16)
    scheduler, _ = make(config, (2, 3), (2, 3))  # the last token's latent is never needed: two pages each
    assert [run(scheduler) for _ in range(3)] == [[(0, 2), (1, 2)], [(0, 1), (1, 1)], [(0, 1), (1, 1)]]
    assert not scheduler.has_work


def test_an_older_prompt_takes_pages_from_younger_decoding() -> None:
    """The oldest always goes on, even when it was itself put back and has to read its tokens again."""
    config = EngineConfig(page_size=1, pages=8, max_running=3, step_token_budget=3)
    scheduler, _ = make(config, (6, 2), (1, 5))
    seen = []
    while scheduler.has_work:
        seen.append(run(scheduler))
    first_done = next(place for place, rows in enumerate(seen) if all(arrival for arrival, _ in rows))
    assert all(rows[0][0] == 0 for rows in seen[:first_done])


def test_the_youngest_gives_way_and_comes_back() -> None:
    config = EngineConfig(page_size=2, pages=6, max_running=2, step_token_budget=16)
    scheduler, sequences = make(config, (2, 9), (2, 9))
    seen: list[set[int]] = []
    for _ in range(60):
        if not scheduler.has_work:
            break
        seen.append({arrival for arrival, _ in run(scheduler)})
    assert {0} in seen[1:]  # for a while only the older one ran
    assert [len(s.tokens) for s in sequences] == [11, 11]
    first_done = next(i for i, rows in enumerate(seen) if 0 not in rows)
    assert all(0 in rows for rows in seen[:first_done])  # the older one never stopped
    assert scheduler.pages.free == 6


def test_finishing_frees_pages_at_once() -> None:
    config = EngineConfig(page_size=2, pages=8, max_running=2, step_token_budget=16)
    scheduler, sequences = make(config, (3, 9), (3, 9))
    run(scheduler)
    assert scheduler.pages.free == 4
    scheduler.finish(sequences[0], "cancelled")
    assert scheduler.pages.free == 6
    assert list(scheduler.running) == [sequences[1]]


def test_an_error_ends_only_its_row() -> None:
    config = EngineConfig(page_size=2, pages=8, max_running=2, step_token_budget=16)
    scheduler, sequences = make(config, (3, 9), (3, 9))
    step = scheduler.schedule()
    progress = scheduler.record(step, [RowResult(error="broken"), RowResult((7,))])
    assert [(p.tokens, p.finish_reason) for p in progress] == [((), "error"), ((7,), None)]
    assert list(scheduler.running) == [sequences[1]]
    assert scheduler.pages.take_unclean() == [1, 0]
    assert scheduler.pages.free == 6


def test_a_request_that_can_never_fit_is_a_bug_of_the_caller() -> None:
    scheduler = Scheduler(EngineConfig(page_size=2, pages=2, max_running=1, step_token_budget=4), ())
    with pytest.raises(RuntimeError, match="5 tokens can never fit"):
        scheduler.add(Sequence(request(0, 3, 2), 0, seed=0))


def test_pages_returned_twice_or_taken_beyond_the_end_are_bugs() -> None:
    pages = PagePool(3)
    taken = pages.take(2)
    with pytest.raises(RuntimeError, match="2 pages were taken while 1 are free"):
        pages.take(2)
    pages.release(taken)
    with pytest.raises(RuntimeError, match="returned twice"):
        pages.release(taken[:1])


def test_scheduling_needs_no_torch() -> None:
    code = "import sys, inference.engine.scheduler; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
