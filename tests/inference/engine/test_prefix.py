"""Which requests find which pages, and who waits for whom."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from inference.engine.prefix import PrefixCache
from inference.engine.scheduler import Scheduler
from inference.engine.sequence import Sequence
from inference.engine.step import RowResult, Step
from inference.engine.types import EngineConfig, GenerationRequest, SamplingParams
from inference.routing.profile import RoutingProfile
from inference.routing.request import RequestRouting
from moe_ops.router import RouterSpec

CONFIG = EngineConfig(page_size=4, pages=64, max_running=8, step_token_budget=64)
PREFIX = tuple(range(10, 30))  # five pages


class Serving:
    """A scheduler whose every chosen token is 50."""

    def __init__(self, config: EngineConfig = CONFIG) -> None:
        self.scheduler = Scheduler(config, ())
        self.arrivals = 0

    def add(self, tokens: tuple[int, ...], max_tokens: int = 1, **fields: Any) -> Sequence:
        params = SamplingParams(max_tokens=max_tokens)
        request = GenerationRequest(f"r{self.arrivals}", tokens, params)
        request = dataclasses.replace(request, **fields)
        sequence = Sequence(request, self.arrivals, seed=0)
        self.arrivals += 1
        self.scheduler.add(sequence)
        return sequence

    def step(self) -> dict[int, tuple[int, int]]:
        """Start and count of each row, by arrival."""
        step = self.scheduler.schedule()
        self.record(step)
        return {row.sequence.arrival: (row.start, len(row.tokens)) for row in step.rows}

    def record(self, step: Step) -> None:
        self.scheduler.record(step, [RowResult((50,) if row.draws else ()) for row in step.rows])
        self.scheduler.check()

    def run(self) -> None:
        for _ in range(500):
            if not self.scheduler.has_work:
                return
            self.step()
        raise AssertionError("the requests do not finish")


def test_what_was_computed_is_found_again() -> None:
    serving = Serving()
    serving.add(PREFIX)
    serving.run()
    second = serving.add((*PREFIX, 1, 2))
    assert serving.step() == {1: (20, 2)}
    assert second.cached_tokens == 20
    counts = serving.scheduler.counts
    assert (counts.prompt_tokens, counts.cached_tokens) == (42, 20)


def test_a_prompt_that_is_cached_to_its_end_computes_its_last_page() -> None:
    serving = Serving()
    serving.add(PREFIX)
    serving.run()
    assert serving.add(PREFIX).arrival == 1
    assert serving.step() == {1: (16, 4)}


def test_the_continuation_is_found_too() -> None:
    serving = Serving()
    first = serving.add(PREFIX[:3], max_tokens=10)
    serving.run()
    second = serving.add((*first.tokens, 7))
    serving.step()
    assert second.cached_tokens == 12  # of the 12 computed: the last token chosen never was


@pytest.mark.parametrize("field", [{"salt": "other"}, {"adapter": "law"}, {"routing": "half"}])
def test_salt_adapter_and_routing_keep_requests_apart(field: dict[str, Any]) -> None:
    serving = Serving()
    serving.add(PREFIX)
    serving.run()
    serving.add(PREFIX, **field)
    assert serving.step() == {1: (0, 20)}
    serving.add(PREFIX, **field)
    assert serving.step() == {2: (16, 4)}


def test_the_same_page_after_another_beginning_is_another_page() -> None:
    serving = Serving()
    serving.add((1, 2, 3, 4, *PREFIX))
    serving.run()
    serving.add((4, 3, 2, 1, *PREFIX))
    assert serving.step() == {1: (0, 24)}


def test_scope_parts_can_not_be_shifted_into_each_other() -> None:
    serving = Serving()
    serving.add(PREFIX, salt="a", adapter="b")
    serving.run()
    serving.add(PREFIX, salt="a', 'b", adapter=None)
    assert serving.step() == {1: (0, 20)}


def test_a_preempted_request_finds_its_own_pages() -> None:
    serving = Serving(dataclasses.replace(CONFIG, pages=12))
    older, younger = serving.add(PREFIX, max_tokens=20), serving.add(tuple(range(50, 70)), max_tokens=20)
    starts = []
    while serving.scheduler.has_work:
        rows = serving.step()
        if younger.arrival in rows:
            starts.append(rows[younger.arrival])
    assert serving.scheduler.counts.preemptions == 1
    again = next((start, count) for start, count in starts[1:] if count > 1)
    assert again[0] == 8  # of its six pages the older one took four
    assert younger.cached_tokens == 0  # what it computed itself is no discount
    assert [older.completion_tokens, younger.completion_tokens] == [20, 20]


def test_siblings_wait_for_the_page_that_one_of_them_computes() -> None:
    serving = Serving()
    for _ in range(4):
        serving.add((*PREFIX, 9), max_tokens=3)
    assert serving.step() == {0: (0, 21)}
    assert serving.step() == {0: (21, 1), 1: (20, 1), 2: (20, 1), 3: (20, 1)}


def test_those_held_back_let_others_pass() -> None:
    serving = Serving(dataclasses.replace(CONFIG, step_token_budget=16))
    serving.add(PREFIX)
    serving.add((*PREFIX, 1))
    serving.add((90, 91), max_tokens=5)
    assert serving.step() == {0: (0, 16)}
    assert serving.step() == {0: (16, 4), 2: (0, 2)}
    assert serving.step() == {1: (20, 1), 2: (2, 1)}


def test_who_shares_only_a_part_waits_only_for_that_part() -> None:
    serving = Serving(dataclasses.replace(CONFIG, step_token_budget=12))
    serving.add(PREFIX)
    serving.add((*PREFIX[:8], 80, 81, 82, 83, 84))
    assert serving.step() == {0: (0, 12)}
    assert serving.step() == {0: (12, 8), 1: (8, 4)}


def test_a_writer_that_goes_away_releases_those_who_wait() -> None:
    serving = Serving(dataclasses.replace(CONFIG, step_token_budget=8))
    first = serving.add(PREFIX)
    serving.add((*PREFIX, 1))
    assert serving.step() == {0: (0, 8)}
    serving.scheduler.finish(first, "cancelled")
    assert serving.step() == {1: (8, 8)}


def test_content_that_failed_is_not_found() -> None:
    serving = Serving()
    serving.add(PREFIX)
    step = serving.scheduler.schedule()
    serving.scheduler.record(step, [RowResult(error="not finite")])
    assert len(serving.scheduler.pages.take_unclean()) == 5
    serving.add(PREFIX)
    assert serving.step() == {1: (0, 20)}


def test_prompt_scores_are_not_taken_from_the_cache() -> None:
    serving = Serving()
    serving.add(PREFIX)
    serving.run()
    serving.add(PREFIX, params=SamplingParams(max_tokens=1, prompt_logprobs=0))
    step = serving.scheduler.schedule()
    assert [(row.start, len(row.tokens), row.scores) for row in step.rows] == [(0, 20, True)]


def test_old_prefixes_give_way_to_new_ones() -> None:
    serving = Serving(dataclasses.replace(CONFIG, pages=10))
    prompts = [tuple(range(first, first + 16)) for first in (100, 200, 300)]
    for prompt in prompts:
        serving.add(prompt)
        serving.run()
    serving.add((*prompts[2], 1))
    assert serving.step() == {3: (16, 1)}
    serving.add((*prompts[0], 1))
    assert serving.step() == {4: (4, 13)}  # its last three pages went first


def test_an_answer_under_a_profile_is_not_taken_from_what_a_prompt_left() -> None:
    """Its own tokens are computed within the profile; the same text as another's prompt was not."""
    profile = RoutingProfile(
        mode="pool", domain="code", checkpoint="c", layers=1, experts=4, size=2, coverage_min=0.0,
        covered=1.0, tokens=1, experts_LM=torch.tensor([[0, 1]]),
    )  # fmt: skip
    spec = RouterSpec(2, 1, 1, "softmax", normalize=True, scale=1.0)
    cache = PrefixCache(pages=16, page_size=4)

    def started(prompt: tuple[int, ...], made: tuple[int, ...] = ()) -> Sequence:
        request = GenerationRequest("r", prompt, SamplingParams(max_tokens=9), routing=profile.id)
        sequence = Sequence(request, 0, seed=0)
        sequence.routing = RequestRouting(profile, spec)
        sequence.tokens += made
        cache.begin(sequence, cache.match(sequence))
        return sequence

    longer = started(PREFIX[:16])
    cache.grow(longer, 16)
    longer.computed = 16
    cache.publish(longer)
    again = started(PREFIX[:8], made=(*PREFIX[8:], 1))  # it was put back, and begins anew
    assert again.computed == 8
    other = started((*PREFIX, 1))
    assert other.computed == 16
    assert other.awaits is None  # nobody waits for pages that are kept to their request
    cache.check([longer, again, other])
