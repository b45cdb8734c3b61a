"""Who goes next: chunks, pages, priorities, deadlines."""

from __future__ import annotations

import subprocess
import sys

import pytest

from inference.engine.scheduler import Scheduler
from inference.engine.sequence import Sequence
from inference.engine.step import RowResult
from inference.engine.types import EngineConfig, GenerationRequest, SamplingParams
from tests.inference.engine.arithmetic import make, request, run


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


def test_scheduling_needs_no_torch() -> None:
    code = "import sys, inference.engine.scheduler; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_prompts_are_read_next_where_there_is_a_place_for_them() -> None:
    config = EngineConfig(page_size=4, pages=50, max_running=2, step_token_budget=16)
    scheduler, _ = make(config, (3, 9), (3, 2), (3, 9))
    assert (scheduler.load, scheduler.reading) == (2, True)
    run(scheduler)
    assert (scheduler.load, scheduler.reading) == (2, False)  # the third waits for a place
    run(scheduler)
    assert (scheduler.load, scheduler.reading) == (2, True)
