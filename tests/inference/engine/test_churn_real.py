"""A tiny real model under churn: every kind of request, adapters that come and go, too few pages.

Whatever else is in the engine, a request is answered as it is alone on a fresh one. That is so to the token
where activations are fp32. Rounded to int8 or bf16 they make a step of a difference in the last bit, which
reading a prompt in other chunks brings; experts chosen by a hair change with it. There answers end as they
should, and no less than half are the same.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from inference.adapters.files import AdapterError
from inference.adapters.store import AdapterStore
from inference.adapters.targets import adapted_modules
from inference.engine.changes import Changes
from inference.engine.core import Engine
from inference.engine.pages import PagePool
from inference.engine.planning import Planner
from inference.engine.runner import Runner
from inference.engine.sampling.grammar import GrammarFactory
from inference.engine.sequence import Sequence
from inference.engine.types import EngineConfig, GenerationRequest, TokenEvent
from inference.models.deepseek import DeepseekModel
from inference.models.loader import load_model
from inference.models.random_checkpoint import TINY_V3, random_checkpoint_write
from inference.tokenizer import Tokenizer
from moe_ops.linear import WeightFormat
from tests.inference.engine.catalogue import Answer, adapter_write, catalogue, ended_once
from tests.inference.engine.conftest import Guesser
from tests.inference.engine.profiles import profile_for
from tests.inference.engine.waits import Waits

CONFIG = EngineConfig(
    page_size=4, pages=32, max_running=6, step_token_budget=24, aging_s=40.0, speculate=True, adapters_max=3
)
TURNS = 700  # in which requests come, about 0.4 in each
END = 5_000


class Clock:
    """Counts turns. Within one it moves on a little, so that steps take time."""

    def __init__(self) -> None:
        self.turn = self._looks = 0

    def next(self) -> None:
        self.turn, self._looks = self.turn + 1, 0

    def __call__(self) -> float:
        self._looks += 1
        return self.turn + self._looks * 1e-3


class House:
    """A model with what its engines share: `folders` has the versions of each adapter."""

    def __init__(self, path: Path, weights: WeightFormat) -> None:
        random_checkpoint_write(path=path / "model", config={**TINY_V3, "num_nextn_predict_layers": 1})
        model = load_model(path / "model", weights=weights, mtp=True)
        assert isinstance(model, DeepseekModel)
        self.model, self.exact = model, weights == "float32"
        self.tokenizer = Tokenizer.from_dir(path / "model")
        self.profiles = [profile_for(model, mode) for mode in ("pool", "session", "hash")]
        self.profiles.append(profile_for(model, "session", coverage_min=1.0))  # never covered
        self.folders = {
            name: [
                adapter_write(path / f"{name}{seed}", model.config, rank=rank, seed=seed) for seed in seeds
            ]
            for name, rank, seeds in (("law", 3, (1, 2)), ("code", 5, (3,)))
        }

    def engine(self, config: EngineConfig, clock: Callable[[], float]) -> Engine:
        store = AdapterStore(
            modules=adapted_modules(self.model.config), limit=config.adapters_max, rank_max=8
        )
        changes = Changes(adapters=store, profiles=self.profiles, routers=self.model.routers, vocabulary=264)
        return Engine(
            config=config,
            runner=Runner(self.model, config, changes=changes),
            eos_ids=self.tokenizer.eos_ids,
            token_bytes=self.tokenizer.token_bytes,
            grammars=GrammarFactory(self.tokenizer),
            clock=clock,
            changes=changes,
        )

    def alone(self, request: GenerationRequest, version: int) -> Answer:
        """What it is answered on a fresh engine with pages enough, without drafts."""
        engine = self.engine(replace(CONFIG, pages=64, speculate=False), Clock())
        if request.adapter is not None:
            engine.changes.load(request.adapter, str(self.folders[request.adapter][version]))
        engine.submit(request)
        events = []
        while engine.has_work:
            events += engine.step()
        engine.close()
        return Answer.of(events)


class Churn:
    """One engine under random load. `expected` knows the answers by kind and version of its adapter."""

    def __init__(self, house: House, kinds: list[GenerationRequest], expected: dict[tuple[str, int], Answer]):
        self.draw = random.Random(11)
        self.house, self.kinds, self.expected = house, kinds, expected
        self.clock = Clock()
        self.engine = house.engine(CONFIG, self.clock)
        self.waits = Waits(CONFIG)
        self.loaded: dict[str, int] = {}
        self.present: dict[str, tuple[GenerationRequest, Answer | None]] = {}
        self.found: dict[str, list[TokenEvent]] = {}
        self.counts: Counter[str] = Counter()

    def turn(self, *, arrivals: float) -> None:
        self.clock.next()
        if self.draw.random() < arrivals:
            self.submit()
        if self.draw.random() < 0.03 and self.present:
            self.cancel(self.draw.choice(list(self.present)))
        if self.draw.random() < 0.08:
            self.change_adapters()
        for event in self.engine.step() if self.engine.has_work else []:
            assert event.request_id in self.present  # nobody is told anything after his end
            self.found[event.request_id].append(event)
            if event.finish_reason is not None:
                self.see_off(event.request_id)
        if not self.engine.has_work:
            self.check_idle()

    def submit(self) -> None:
        draw, number = self.draw, len(self.found)
        kind = draw.choice(self.kinds)
        request = replace(
            kind,
            request_id=f"r{number}",
            salt=draw.choice(["", "", "tenant"]),
            priority=draw.choice([0, 0, -1, 2]),
            deadline_s=draw.choice([None, None, 25.0]),
        )
        answer = None
        if kind.adapter is None or kind.adapter in self.loaded:
            answer = self.expected[kind.request_id, self.loaded.get(kind.adapter or "", 0)]
        self.present[request.request_id] = request, answer
        self.found[request.request_id] = []
        self.waits.arrive(request.request_id, request, self.clock.turn)
        self.engine.submit(request)

    def cancel(self, name: str) -> None:
        self.engine.cancel(name)
        del self.present[name]
        self.waits.end(name, self.clock.turn)
        self.counts["cancelled"] += 1

    def change_adapters(self) -> None:
        """Drop one that is there, load one of its versions, or both; those in use may leave no place."""
        name = self.draw.choice(sorted(self.house.folders))
        if self.loaded.pop(name, None) is not None:
            self.engine.changes.drop(name)
            self.counts["dropped"] += 1
            if self.draw.random() < 0.5:
                return
        version = self.draw.randrange(len(self.house.folders[name]))
        with suppress(AdapterError):
            self.engine.changes.load(name, str(self.house.folders[name][version]))
            self.loaded[name] = version
            self.counts[f"loaded {name} {version}"] += 1

    def see_off(self, name: str) -> None:
        request, answer = self.present.pop(name)
        self.waits.end(name, self.clock.turn)
        events = self.found[name]
        assert ended_once(events)
        reason = events[-1].finish_reason
        self.counts[str(reason)] += 1
        if reason == "expired":
            assert request.deadline_s is not None
            assert [event.token_ids for event in events] == [()]
        elif answer is None:
            assert reason == "refused"
        else:
            assert reason in ("stop", "length")
            self.counts["answered"] += 1
            if self.house.exact:
                Answer.of(events).check(answer)
            self.counts["equal"] += Answer.of(events).exact == answer.exact

    def check_idle(self) -> None:
        assert not self.present
        self.engine.check()
        stats = self.engine.stats()
        assert (stats.pages_free, stats.running, stats.queued) == (CONFIG.pages, 0, 0)

    def check_no_adapter_is_left(self) -> None:
        """With all dropped there is room for as many as were ever served."""
        for name in self.loaded:
            self.engine.changes.drop(name)
        folder = str(self.house.folders["law"][0])
        for number in range(CONFIG.adapters_max):
            self.engine.changes.load(f"new {number}", folder)
        with pytest.raises(AdapterError, match="the most that are served"):
            self.engine.changes.load("one more", folder)


@pytest.mark.parametrize("weights", ["float32", "bfloat16", "int8"])
def test_everybody_gets_what_he_gets_alone_and_nothing_is_left(
    tmp_path: Path, weights: WeightFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = House(tmp_path, weights)
    kinds = catalogue(house.profiles)
    expected = {
        (kind.request_id, version): house.alone(kind, version)
        for kind in kinds
        for version in range(len(house.folders.get(kind.adapter or "", [""])))
    }
    texts = [
        [*kind.prompt_token_ids, *expected[kind.request_id, 0].tokens] for kind in kinds if not kind.adapter
    ]
    house.model.mtp = Guesser(texts, 264)
    evictions = count_calls(monkeypatch, PagePool, "_evict")
    churn = Churn(house, kinds, expected)
    watch_begins(monkeypatch, churn)
    for turn in range(END):
        churn.turn(arrivals=0.0 if turn >= TURNS else 0.55 if turn // 100 % 2 == 0 else 0.15)
        if turn >= TURNS and not churn.engine.has_work:
            break
    churn.check_idle()
    churn.check_no_adapter_is_left()
    churn.engine.close()
    stats, counts = churn.engine.stats(), churn.counts
    assert min(stats.preemptions, stats.cached_tokens, stats.accepted_tokens, len(evictions)) > 10, stats
    assert counts["equal"] > counts["answered"] // 2 > 50
    ends = ("stop", "length", "expired", "refused", "cancelled", "dropped")
    versions = [f"loaded {name} {i}" for name, folders in house.folders.items() for i in range(len(folders))]
    assert min(counts[name] for name in (*ends, *versions)) > 1, counts
    assert counts.keys() <= {*ends, *versions, "answered", "equal"}


def watch_begins(monkeypatch: pytest.MonkeyPatch, churn: Churn) -> None:
    """Note who is admitted from now on."""
    original = Planner._begin

    def noting(self: Planner, sequence: Sequence, found: list[int], now_s: float) -> None:
        churn.waits.begin(sequence.request.request_id, churn.clock.turn)
        original(self, sequence, found, now_s)

    monkeypatch.setattr(Planner, "_begin", noting)


def count_calls(monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> list[None]:
    """Grows by one with every call of a method, which does what it did."""
    calls: list[None] = []
    original = getattr(owner, name)

    def counting(*arguments: Any) -> Any:
        calls.append(None)
        return original(*arguments)

    monkeypatch.setattr(owner, name, counting)
    return calls
