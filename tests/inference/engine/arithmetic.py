"""A model made of arithmetic, which knows only what is in its pages, and how to serve with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from inference.engine.outcome import accepted
from inference.engine.sampling import Choice
from inference.engine.scheduler import Scheduler
from inference.engine.sequence import Sequence
from inference.engine.step import Row, RowResult, Step
from inference.engine.types import EngineConfig, GenerationRequest, SamplingParams

EOS = 0


def request(number: int, prompt: int, max_tokens: int, **fields: Any) -> GenerationRequest:
    """Prompts of every third request begin alike."""
    tokens = tuple((number % 3 * 31 + i * 7) % 90 + 10 for i in range(prompt))
    return GenerationRequest(f"r{number}", tokens, SamplingParams(max_tokens=max_tokens), **fields)


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
        seen = [self.memory[self._slot(row, i)] for i in range(row.end)]
        places = range(row.end - len(row.draws) + 1, row.end + 1)
        result = accepted(row, [Choice(next_token(seen[:place])) for place in places])
        text = [*row.sequence.tokens, *result.tokens]
        return result._replace(drafts=tuple(guesses(text)) if row.draft else ())

    def _slot(self, row: Row, position: int) -> int:
        return row.pages[position // self.page_size] * self.page_size + position % self.page_size


def guesses(text: list[int]) -> list[int]:
    """Up to three drafts, about two of three of them right."""
    text = text.copy()
    count = sum(text) % 4
    for _ in range(count):
        text.append(next_token(text) if sum(text) % 3 else 11)
    return text[len(text) - count :]


def check(scheduler: Scheduler, step: Step, config: EngineConfig) -> None:
    running = scheduler.running
    scheduler.check()
    assert len(running) <= config.max_running
    assert sum(len(row.tokens) for row in step.rows) <= config.step_token_budget
    for row in step.rows:
        sequence = row.sequence
        assert row.start == sequence.computed
        text = [*sequence.tokens, *sequence.drafts]
        assert list(row.tokens) == text[row.start : row.end]
        assert len(row.draws) == max(row.end - len(sequence.tokens) + 1, 0)
        assert sequence.completion_tokens + len(row.draws) <= sequence.request.params.max_tokens
    scheduled = {row.sequence.arrival for row in step.rows}
    assert all(s.arrival in scheduled for s in running if s.pending == 1), (
        "a decoding request was passed over"
    )


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
