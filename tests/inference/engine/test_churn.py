"""A long day in short: requests of every kind come, go and fail while pages are scarce."""

from __future__ import annotations

import dataclasses
import itertools
import random
from typing import Any

from inference.engine.scheduler import Scheduler
from inference.engine.sequence import Sequence
from inference.engine.step import RowResult
from inference.engine.types import EngineConfig, GenerationRequest, Grammar, SamplingParams, TokenEvent
from tests.inference.engine.arithmetic import EOS, Fake, check, continuation
from tests.inference.engine.conftest import Table

STEPS = 6_000
CONFIG = EngineConfig(page_size=4, pages=96, max_running=12, step_token_budget=48, aging_s=40.0)
FAMILIES = [tuple((family * 31 + i * 7) % 90 + 10 for i in range(60)) for family in range(5)]


class Day:
    """A scheduler under random load. Its clock counts steps."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.scheduler = Scheduler(CONFIG, {EOS})
        self.fake = Fake(CONFIG.page_size)
        self.sequences: list[Sequence] = []
        self.now = 0.0

    def turn(self, arrivals: float) -> None:
        self.now += 1.0
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
        self.scheduler.add(sequence, self.now)

    def cancel(self) -> None:
        alive = [one for one in self.sequences[-40:] if one.finish_reason is None]
        if alive:
            self.scheduler.finish(self.random.choice(alive), "cancelled")

    def result(self, result: RowResult) -> RowResult:
        return RowResult(error="deliberate") if self.random.random() < 0.002 else result

    def check_order(self, before: set[Sequence]) -> None:
        """Nobody begins before a request that goes first, unless that one waits for a page being filled."""
        begun = [one for one in self.scheduler.running if one not in before]
        for waiting in self.scheduler.waiting:
            assert waiting.awaits is not None or not any(waiting.rank < one.rank for one in begun)


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
        if one.finish_reason in ("stop", "length"):
            assert one.tokens == continuation(one.request)
    assert min(ends.values()) > 0, ends
    counts = day.scheduler.counts
    assert counts.preemptions > 20
    assert counts.cached_tokens > counts.prompt_tokens / 5
    assert 0 < counts.accepted_tokens < counts.drafted_tokens


def templates() -> list[SamplingParams]:
    plain = SamplingParams(max_tokens=16, temperature=0.0)
    return [
        plain,
        dataclasses.replace(plain, temperature=0.9, seed=3),
        dataclasses.replace(plain, temperature=1.2, top_p=0.8, seed=4, stop=("e", "zz")),
        dataclasses.replace(plain, temperature=1.0, top_k=20, seed=5, presence_penalty=0.5),
        dataclasses.replace(plain, temperature=1.0, seed=6, grammar=Grammar("regex", "[a-k]{3,12}")),
        dataclasses.replace(plain, temperature=1.0, seed=7, logprobs=1, ignore_eos=True),
    ]


def test_a_real_model_under_churn_gives_everybody_what_he_gets_alone(table: Table) -> None:
    draw = random.Random(11)
    kinds = [
        GenerationRequest(f"k{number}", FAMILIES[number % 3][: 5 + 9 * (number % 6)], params)
        for number, params in enumerate(templates() * 3)
    ]
    alone = {kind.request_id: table.serve([kind])[kind.request_id] for kind in kinds}
    expected = {
        name: [token for event in events for token in event.token_ids] for name, events in alone.items()
    }
    table.guess([[*kind.prompt_token_ids, *expected[kind.request_id]] for kind in kinds])
    engine = table.engine(
        clock=itertools.count(0.0).__next__, speculate=True, pages=20, max_running=6, step_token_budget=24
    )
    found: dict[str, list[TokenEvent]] = {}
    kind_of: dict[str, str] = {}
    cancelled: set[str] = set()
    for turn in range(2_000):
        if turn < 200 and draw.random() < 0.4:
            kind, name = draw.choice(kinds), f"r{turn}"
            salt, priority = draw.choice(["", "", "tenant"]), draw.choice([0, 0, -1, 2])
            engine.submit(dataclasses.replace(kind, request_id=name, salt=salt, priority=priority))
            kind_of[name], found[name] = kind.request_id, []
        if draw.random() < 0.03 and found:
            name = draw.choice(list(found))
            cancelled |= {name} - {
                key for key, events in found.items() if events and events[-1].finish_reason
            }
            engine.cancel(name)
        for event in engine.step() if engine.has_work else []:
            found[event.request_id].append(event)
        if not engine.has_work:
            engine.check()
            assert engine.stats().pages_free == 20
            if turn >= 200:
                break
    for name, events in found.items():
        if name not in cancelled:
            whole = alone[kind_of[name]]
            assert [token for event in events for token in event.token_ids] == expected[kind_of[name]]
            assert "".join(event.text for event in events) == "".join(event.text for event in whole)
            assert events[-1].finish_reason == whole[-1].finish_reason
    stats = engine.stats()
    assert len(found) - len(cancelled) > 50
    assert min(stats.preemptions, stats.cached_tokens, stats.accepted_tokens, len(cancelled)) > 0
