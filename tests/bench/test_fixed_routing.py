"""The bench of the fixed tier: its client on a real engine, its rows and its plot."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bench.azure import ChatRequest
from bench.fixed_routing import DYNAMIC, LOADS, TARGET, TIER, VARIANTS, Measured, measured_rows, plot
from bench.trace_client import Client, Load, summary_of
from bench.trace_client import Served as Times
from inference.engine import AsyncEngine, EngineConfig
from inference.models.random_checkpoint import TINY_V3, random_checkpoint_write

TRACE = [ChatRequest(0.01 * number, 4 + number, 3) for number in range(40)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny")
    random_checkpoint_write(path=path, config=TINY_V3)
    return path


def test_the_client_saturates_an_engine_and_replays_the_trace_at_a_load(folder: Path) -> None:
    async def measure() -> tuple[float, Load, int]:
        engine = AsyncEngine.load(folder, EngineConfig(max_running=4, pages=64, paced=True))
        await engine.start()
        try:
            client = Client(engine, trace=TRACE, text=tuple(range(10, 250)), routing=None)
            rate = await client.saturate(0.6)
            before = engine.stats().generated_tokens
            load = await client.replay(30.0, 1.0)
            return rate, load, engine.stats().generated_tokens - before
        finally:
            await engine.close()

    rate, load, tokens = asyncio.run(measure())
    assert rate > 0
    assert tokens == 30
    assert 0 < load.gap_p50 <= load.gap_p99
    assert len(load.gaps) % 2 == 0  # three tokens a request


def test_gaps_are_those_between_tokens_of_one_request() -> None:
    load = summary_of([Times(1.0, [1.5, 1.6, 1.8]), Times(2.0, [2.25])])
    assert load.gaps == pytest.approx((0.1, 0.2))
    assert load.first_p50 == pytest.approx(0.375)
    assert load.spread == pytest.approx(0.199 / 0.15)


def test_the_tier_is_compared_with_dynamic_routing_and_with_the_target(tmp_path: Path) -> None:
    load = Load(0.1, 0.2, 0.010, 0.0105, (0.01, 0.01, 0.0105))
    wild = Load(0.1, 0.2, 0.005, 0.0250, (0.005, 0.005, 0.025))
    found = [
        Measured(variant, 100.0, (load if variant is TIER else wild,) * len(LOADS), 8.0)
        for variant in VARIANTS
    ]
    rows = {row.metric: row for row in measured_rows(found)}
    tier = rows["80% load, p99/p50"]
    assert tier.value == pytest.approx(1.05)
    assert tier.peer == DYNAMIC.name
    assert tier.peer_value == pytest.approx(5.0)
    assert tier.limit == TARGET
    assert tier.fraction == pytest.approx(TARGET / 1.05)
    plot(found, tmp_path / "plot.svg")
    assert "<svg" in (tmp_path / "plot.svg").read_text(encoding="utf-8")
