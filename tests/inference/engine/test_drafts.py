"""Rows that verify drafts, and requests that ask for something else than tokens."""

from __future__ import annotations

from inference.engine.scheduler import Scheduler
from inference.engine.sequence import Sequence
from inference.engine.step import Progress, RowResult
from inference.engine.types import EngineConfig, GenerationRequest, Grammar, SamplingParams
from tests.inference.engine.arithmetic import EOS, make, request, run


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


def test_what_was_missed_before_a_preemption_counts_once() -> None:
    config = EngineConfig(page_size=4, pages=12, max_running=2)
    scheduler, (elder, younger) = make(config, (16, 30), (16, 30))
    while not scheduler.counts.preemptions:
        run(scheduler)  # nobody reads for the module
    assert elder.unseen == elder.computed
    assert younger.unseen == 0
    scheduler.finish(elder, "cancelled")
    (row,) = scheduler.schedule(drafting=True).rows
    assert 0 < younger.unseen == row.start  # the pages that are found again; the rest is read by the module


def test_who_finds_pages_that_the_draft_module_missed_does_not_guess_either() -> None:
    for drafting in (False, True):
        scheduler = Scheduler(EngineConfig(page_size=4, pages=50), ())
        for arrival in (0, 1):
            prompt = tuple(range(20))
            sequence = Sequence(GenerationRequest("r", prompt, SamplingParams(max_tokens=1)), arrival, seed=0)
            scheduler.add(sequence)
            step = scheduler.schedule(drafting=drafting or arrival == 1)
            scheduler.record(step, [RowResult((30,))])
        assert sequence.cached_tokens == 16
        assert sequence.unseen == (0 if drafting else 16)
        assert step.rows[0].draft is drafting


def test_pages_that_are_taken_anew_were_not_missed() -> None:
    scheduler = Scheduler(EngineConfig(page_size=4, pages=6), ())
    for arrival, first in enumerate((0, 100, 100)):
        prompt = tuple(range(first, first + 20))
        sequence = Sequence(GenerationRequest("r", prompt, SamplingParams(max_tokens=1)), arrival, seed=0)
        scheduler.add(sequence)
        scheduler.record(scheduler.schedule(drafting=arrival > 0), [RowResult((30,))])
    assert (sequence.cached_tokens, sequence.unseen) == (16, 0)


def test_the_draft_module_reads_nothing_where_no_row_may_ever_draft() -> None:
    grammar = SamplingParams(max_tokens=3, grammar=Grammar("regex", "a*"))
    plain = SamplingParams(max_tokens=3)
    for requests, reads in (
        ([(grammar, False)], False),
        ([(plain, True)], False),
        ([(grammar, False), (plain, True)], False),
        ([(grammar, False), (plain, False)], True),
        ([(plain, False)], True),
    ):
        scheduler = Scheduler(
            EngineConfig(max_running=4, step_token_budget=12), ()
        )  # prompts go on in the next step
        for arrival, (params, embed) in enumerate(requests):
            one = GenerationRequest("r", (arrival,) * 10, params, embed=embed)
            scheduler.add(Sequence(one, arrival, seed=0))
        step = scheduler.schedule(drafting=True)
        assert step.drafting is reads
        scheduler.record(step, [RowResult((20,) if row.draws else ()) for row in step.rows])
        assert all(row.sequence.unseen == (0 if reads else row.end) for row in step.rows)


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
