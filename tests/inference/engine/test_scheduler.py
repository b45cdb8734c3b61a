"""The scheduler against a model made of arithmetic: invariants after every step, and the same tokens in the
end.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.engine.outcome import accepted
from inference.engine.sampling import Choice
from inference.engine.scheduler import Scheduler
from inference.engine.sequence import Sequence
from inference.engine.step import Progress, Row, RowResult, Step
from inference.engine.types import EngineConfig, GenerationRequest, Grammar, SamplingParams

EOS = 0

Size = tuple[int, int, dict[str, Any]]


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


@st.composite
def workloads(draw: st.DrawFn) -> tuple[EngineConfig, list[Size], list[tuple[str, int]]]:
    page_size = draw(st.integers(1, 5))
    pages = draw(st.integers(2, 14))
    max_running = draw(st.integers(1, 5))
    budget = draw(st.integers(max_running, max_running + 12))
    config = EngineConfig(page_size=page_size, pages=pages, max_running=max_running, step_token_budget=budget)
    room = page_size * pages
    sizes = []
    for _ in range(draw(st.integers(1, 9))):
        prompt = draw(st.integers(1, room - 1))
        fields = {
            "priority": draw(st.integers(-1, 1)),
            "deadline_s": draw(st.sampled_from([None, None, 3.0])),
        }
        sizes.append((prompt, draw(st.integers(1, room - prompt)), fields))
    actions = st.tuples(st.sampled_from(["submit", "step", "step", "cancel"]), st.integers(0, 8))
    return config, sizes, draw(st.lists(actions, max_size=40))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(workloads())
def test_no_page_is_lost_and_every_request_gets_its_own_tokens(
    workload: tuple[EngineConfig, list[Size], list[tuple[str, int]]],
) -> None:
    config, sizes, actions = workload
    scheduler, fake = Scheduler(config, {EOS}), Fake(config.page_size)
    sequences: list[Sequence] = []

    now = 0.0

    def submit() -> None:
        number = len(sequences)
        if number < len(sizes):
            prompt, max_tokens, fields = sizes[number]
            sequences.append(Sequence(request(number, prompt, max_tokens, **fields), number, seed=0))
            scheduler.add(sequences[-1], now)

    def step() -> None:
        nonlocal now
        now += 1.0
        scheduler.expire(now)
        worked = scheduler.has_work
        chosen = scheduler.schedule(now, drafting=int(now) % 5 > 0)
        check(scheduler, chosen, config)
        assert bool(chosen.rows) == worked, "work is there and nothing moves"
        scheduler.record(chosen, fake.run(chosen))
        scheduler.check()

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
        if sequence.finish_reason == "expired":
            assert not sequence.begun
            assert sequence.request.deadline_s is not None
        elif sequence.finish_reason != "cancelled":
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


def test_a_better_priority_goes_first_and_arrival_breaks_ties() -> None:
    config = EngineConfig(page_size=4, pages=50, max_running=1, step_token_budget=8)
    scheduler = Scheduler(config, ())
    for arrival, priority in enumerate((2, 0, -1, 0)):
        scheduler.add(
            Sequence(request(arrival, 2, 1, priority=priority), arrival, seed=0), now_s=arrival / 10
        )
    assert [run(scheduler)[0][0] for _ in range(4)] == [2, 1, 3, 0]


def test_waiting_long_makes_up_for_priority() -> None:
    config = EngineConfig(page_size=4, pages=50, max_running=1, step_token_budget=8, aging_s=10.0)
    scheduler = Scheduler(config, ())
    for arrival, (priority, now_s) in enumerate([(1, 0.0), (0, 9.0), (0, 11.0)]):
        scheduler.add(Sequence(request(arrival, 2, 1, priority=priority), arrival, seed=0), now_s=now_s)
    assert [run(scheduler)[0][0] for _ in range(3)] == [1, 0, 2]


def test_a_better_priority_takes_the_place_of_a_running_request() -> None:
    config = EngineConfig(page_size=4, pages=50, max_running=2, step_token_budget=64)
    scheduler, (_, second) = make(config, (9, 9), (9, 9))
    run(scheduler)
    urgent = Sequence(request(2, 9, 2, priority=-5), 2, seed=0)
    scheduler.add(urgent)
    assert [arrival for arrival, _ in run(scheduler)] == [2, 0]
    assert list(scheduler.waiting) == [second]
    run(scheduler)
    assert urgent.finish_reason == "length"
    assert [arrival for arrival, _ in run(scheduler)] == [0, 1]
    assert scheduler.counts.preemptions == 1


def test_equal_priorities_never_take_a_place() -> None:
    config = EngineConfig(page_size=4, pages=50, max_running=1, step_token_budget=64)
    scheduler, (first, _) = make(config, (9, 5), (9, 1))
    while first.finish_reason is None:
        assert [arrival for arrival, _ in run(scheduler)] == [0]


def test_what_has_not_begun_in_time_expires() -> None:
    config = EngineConfig(page_size=4, pages=50, max_running=1, step_token_budget=64)
    scheduler = Scheduler(config, ())
    sequences = [Sequence(request(i, 2, 9, deadline_s=5.0), i, seed=0) for i in range(3)]
    scheduler.add(sequences[0], now_s=0.0)
    run(scheduler)
    scheduler.add(sequences[1], now_s=1.0)
    scheduler.add(sequences[2], now_s=2.0)
    scheduler.finish(sequences[2], "cancelled")
    assert scheduler.expire(5.9) == []
    assert [progress.sequence for progress in scheduler.expire(6.0)] == [sequences[1]]
    assert scheduler.expire(99.0) == []
    assert [one.finish_reason for one in sequences] == [None, "expired", "cancelled"]
    assert scheduler.counts.expired == 1


def test_the_end_token_may_be_ignored() -> None:
    scheduler = Scheduler(EngineConfig(), {50})
    params = SamplingParams(max_tokens=3, ignore_eos=True)
    sequence = Sequence(GenerationRequest("r", (1,), params), 0, seed=0)
    scheduler.add(sequence)
    while scheduler.has_work:
        run(scheduler)
    assert (sequence.tokens, sequence.finish_reason) == ([1, 50, 50, 50], "length")


def drafted(scheduler: Scheduler, *results: RowResult) -> list[Progress]:
    step = scheduler.schedule(drafting=True)
    return scheduler.record(step, list(results))


def test_accepted_drafts_bring_several_tokens_in_a_step() -> None:
    scheduler, (sequence,) = make(EngineConfig(page_size=4, pages=50), (6, 9))
    drafted(scheduler, RowResult((20,), drafts=(21, 22)))
    step = scheduler.schedule(drafting=True)
    assert [(list(row.tokens), row.start) for row in step.rows] == [([20, 21, 22], 6)]
    assert [draw.index for draw in step.rows[0].draws] == [1, 2, 3]
    progress = scheduler.record(step, [RowResult((21, 30))])
    assert [one.tokens for one in progress] == [(21, 30)]
    assert (sequence.computed, sequence.tokens[6:]) == (8, [20, 21, 30])
    assert (scheduler.counts.drafted_tokens, scheduler.counts.accepted_tokens) == (2, 1)
    assert [list(row.tokens) for row in scheduler.schedule(drafting=True).rows] == [[30]]


def test_an_end_among_accepted_tokens_ends_there() -> None:
    scheduler = Scheduler(EngineConfig(), {EOS})
    sequence = Sequence(request(0, 6, 9), 0, seed=0)
    scheduler.add(sequence)
    drafted(scheduler, RowResult((20,), drafts=(EOS, 22)))
    (progress,) = drafted(scheduler, RowResult((EOS, 22, 23)))
    assert (progress.tokens, progress.finish_reason) == ((EOS,), "stop")
    assert sequence.tokens[6:] == [20, EOS]


def test_drafts_stop_where_the_request_does() -> None:
    scheduler, (sequence,) = make(EngineConfig(), (6, 3))
    drafted(scheduler, RowResult((20,), drafts=(21, 22, 23)))
    step = scheduler.schedule(drafting=True)
    assert list(step.rows[0].tokens) == [20, 21]
    (progress,) = scheduler.record(step, [RowResult((21, 22))])
    assert (progress.tokens, sequence.finish_reason) == ((21, 22), "length")


def test_drafts_are_verified_only_while_that_pays_and_never_kept_for_later() -> None:
    scheduler, _ = make(EngineConfig(), (6, 9))
    drafted(scheduler, RowResult((20,), drafts=(21,)))
    step = scheduler.schedule()
    assert [(list(row.tokens), row.draft) for row in step.rows] == [([20], False)]
    scheduler.record(step, [RowResult((21,))])
    assert [list(row.tokens) for row in scheduler.schedule(drafting=True).rows] == [[21]]


def test_drafts_cost_nobody_a_page_or_a_place_in_the_step() -> None:
    config = EngineConfig(page_size=1, pages=8, max_running=2, step_token_budget=2)
    scheduler, sequences = make(config, (1, 7), (1, 3))
    first = RowResult((20,), drafts=(21, 22, 23))
    drafted(scheduler, first, first)
    step = scheduler.schedule(drafting=True)
    assert [list(row.tokens) for row in step.rows] == [[20], [20]]
    assert [one.finish_reason for one in sequences] == [None, None]


def test_texts_with_penalties_or_grammars_are_not_guessed() -> None:
    for params in (
        SamplingParams(max_tokens=3, presence_penalty=0.1),
        SamplingParams(max_tokens=3, repetition_penalty=1.1),
        SamplingParams(max_tokens=3, grammar=Grammar("regex", "a*")),
    ):
        scheduler = Scheduler(EngineConfig(), ())
        scheduler.add(Sequence(GenerationRequest("r", (1, 2), params), 0, seed=0))
        assert not scheduler.schedule(drafting=True).rows[0].draft


def test_a_text_that_the_draft_module_missed_is_not_guessed() -> None:
    scheduler, _ = make(EngineConfig(), (20, 40))
    run(scheduler)
    guessed = []
    for _ in range(15):
        step = scheduler.schedule(drafting=True)
        guessed.append(step.rows[0].draft)
        scheduler.record(step, [RowResult((20,))])
    assert not any(guessed)
    for _ in range(20):
        step = scheduler.schedule(drafting=True)
        guessed.append(step.rows[0].draft)
        scheduler.record(step, [RowResult((20,))])
    assert not guessed[-1]  # 20 of 56 tokens were missed


def test_an_embedding_ends_with_its_prompt() -> None:
    scheduler = Scheduler(EngineConfig(step_token_budget=64), ())
    sequence = Sequence(
        GenerationRequest("r", (1,) * 100, SamplingParams(max_tokens=1), embed=True), 0, seed=0
    )
    scheduler.add(sequence)
    step = scheduler.schedule()
    assert [(row.embed, len(row.tokens)) for row in step.rows] == [(False, 64)]
    assert scheduler.record(step, [RowResult()]) == []
    step = scheduler.schedule()
    assert [(row.embed, row.draws) for row in step.rows] == [(True, ())]
    (progress,) = scheduler.record(step, [RowResult(embedding=(1.0,))])
    assert (progress.tokens, progress.finish_reason, progress.embedding) == ((), "stop", (1.0,))
    assert sequence.completion_tokens == 0
    assert not scheduler.has_work


def test_scheduling_needs_no_torch() -> None:
    code = "import sys, inference.engine.scheduler; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
