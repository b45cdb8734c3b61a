"""Eight hours in short: requests of every kind come, go and fail while pages are scarce.

A small worker that takes a request every five seconds on average, in bursts, takes 5,760 in eight hours. So
many at least come to the scheduler here, in steps as full as those of its busiest minutes: as many arrivals,
ends, pages taken, evicted and given back as in those hours, without the pauses. What the steps compute is
arithmetic; the same on a real model, with all that requests may ask for, is in `test_churn_real.py`.
"""

from __future__ import annotations

import random
from operator import attrgetter
from typing import Any

from inference.engine.scheduler import Scheduler
from inference.engine.sequence import Sequence
from inference.engine.step import RowResult
from inference.engine.types import EngineConfig, GenerationRequest, SamplingParams
from tests.inference.engine.arithmetic import EOS, Fake, check, continuation
from tests.inference.engine.catalogue import FAMILIES
from tests.inference.engine.waits import Waits

EIGHT_HOURS = 8 * 3600 // 5  # requests
STEPS = 12_000
CONFIG = EngineConfig(page_size=4, pages=96, max_running=12, step_token_budget=48, aging_s=4.0)


class Day:
    """A scheduler under random load. Its clock counts steps."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.scheduler = Scheduler(CONFIG, {EOS})
        self.fake = Fake(CONFIG.page_size)
        self.sequences: list[Sequence] = []
        self.present: list[Sequence] = []
        self.waits = Waits(CONFIG)
        self.now = 0

    def turn(self, arrivals: float) -> None:
        self.now += 1
        while self.random.random() < arrivals:
            self.submit()
        if self.random.random() < 0.03:
            self.cancel()
        self.scheduler.expire(self.now)
        before = set(self.scheduler.running)
        step = self.scheduler.schedule(self.now, drafting=self.random.random() < 0.8)
        self.check_order(before)
        check(self.scheduler, step, CONFIG)
        self.scheduler.record(step, [self.result(row) for row in self.fake.run(step)] if step.rows else [])
        for page in self.scheduler.pages.take_unclean():
            for offset in range(CONFIG.page_size):
                self.fake.memory.pop(page * CONFIG.page_size + offset, None)
        self.see_off()

    def submit(self) -> None:
        draw, number = self.random, len(self.sequences)
        family = draw.choice(FAMILIES)
        prompt = (*family[: draw.randint(1, 60)], *(draw.randint(10, 99) for _ in range(draw.randint(0, 6))))
        fields: dict[str, Any] = {
            "salt": draw.choice(["", "", "tenant"]),
            "adapter": draw.choice([None, None, "law"]),
            "priority": draw.choice([0, 0, 0, -2, 3]),
            "deadline_s": draw.choice([None, None, None, 30.0]),
        }
        params = SamplingParams(max_tokens=draw.choice([1, 5, 20, 80]))
        sequence = Sequence(GenerationRequest(f"r{number}", prompt, params, **fields), number, seed=0)
        self.sequences.append(sequence)
        self.present.append(sequence)
        self.waits.arrive(sequence.request.request_id, sequence.request, self.now)
        self.scheduler.add(sequence, self.now)

    def cancel(self) -> None:
        if self.present:
            self.scheduler.finish(self.random.choice(self.present), "cancelled")
            self.see_off()

    def see_off(self) -> None:
        """Those that have ended were not kept too long, and are answered as arithmetic says."""
        for one in self.present:
            if one.finish_reason is not None:
                self.waits.end(one.request.request_id, self.now)
            if one.finish_reason in ("stop", "length"):
                assert one.tokens == continuation(one.request)
        self.present = [one for one in self.present if one.finish_reason is None]

    def result(self, result: RowResult) -> RowResult:
        return RowResult(error="deliberate") if self.random.random() < 0.002 else result

    def check_order(self, before: set[Sequence]) -> None:
        """Nobody begins before a request that goes first, unless that one waits for a page being filled."""
        begun = [one for one in self.scheduler.running if one not in before]
        for waiting in self.scheduler.waiting:
            assert waiting.awaits is not None or not any(waiting.rank < one.rank for one in begun)
        for one in sorted(begun, key=attrgetter("rank")):
            self.waits.begin(one.request.request_id, self.now)


def test_a_long_day_loses_no_page_starves_nobody_and_changes_no_token() -> None:
    day = Day(seed=7)
    for turn in range(STEPS):
        busy = turn // 500 % 2 == 0
        day.turn(0.5 if busy else 0.05)
        if not day.scheduler.has_work:
            day.scheduler.check()
            assert day.scheduler.pages.free == CONFIG.pages
    for _ in range(20_000):
        if not day.scheduler.has_work:
            break
        day.turn(0.0)
    day.scheduler.check()
    assert day.scheduler.pages.free == CONFIG.pages
    ends = dict.fromkeys(("stop", "length", "cancelled", "expired", "error"), 0)
    for one in day.sequences:
        assert one.finish_reason is not None
        ends[one.finish_reason] += 1
    assert len(day.sequences) >= EIGHT_HOURS
    assert min(ends.values()) > 0, ends
    counts = day.scheduler.counts
    assert counts.preemptions > 20
    assert counts.cached_tokens > counts.prompt_tokens / 5
    assert 0 < counts.accepted_tokens < counts.drafted_tokens
