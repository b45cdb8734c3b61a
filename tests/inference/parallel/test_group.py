"""A worker's engine on two processes: the same tokens, clear refusals, and an end when a rank dies."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from inference.engine.remote import EngineDiedError, RemoteEngine
from inference.engine.types import (
    EngineConfig,
    GenerationRequest,
    RequestRejected,
    SamplingParams,
    TokenEvent,
)
from inference.models.random_checkpoint import TINY_V3, random_checkpoint_write
from inference.parallel.group import sharing_check
from inference.parallel.sharding import ExpertLayout

CONFIG = EngineConfig(page_size=4, pages=128, max_running=4, step_token_budget=64)
PAIR = dataclasses.replace(CONFIG, ranks=2)


def request(number: int, **fields: object) -> GenerationRequest:
    prompt = tuple((number * 37 + i * 11) % 250 + 8 for i in range(5 + 9 * number))
    base = SamplingParams(max_tokens=10, temperature=0.8 * (number % 2), seed=number)
    return GenerationRequest(f"r{number}", prompt, dataclasses.replace(base, **fields))  # type: ignore[arg-type]


async def collect(engine: RemoteEngine, one: GenerationRequest) -> list[TokenEvent]:
    return await rest_of(engine.generate(one))


async def rest_of(stream: AsyncIterator[TokenEvent]) -> list[TokenEvent]:
    return [event async for event in stream]


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def gone(pid: int) -> bool:
    """Whether a process that is nobody's child here is gone, or will be in a moment."""
    for _ in range(500):
        if not Path(f"/proc/{pid}").exists():
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize("layout", ["whole", "cut"])
async def test_two_processes_serve_the_tokens_of_one(tiny_dir: Path, layout: ExpertLayout) -> None:
    found = []
    for config in (CONFIG, dataclasses.replace(PAIR, expert_layout=layout)):
        engine = await RemoteEngine.launch(tiny_dir, config)
        others = children(engine.pid)
        assert len(others) == config.ranks - 1
        events = [await collect(engine, request(number)) for number in range(4)]
        found.append([[event.token_ids for event in one] for one in events])
        await engine.close()
        assert all(map(gone, others))
    assert found[0] == found[1]


@pytest.mark.parametrize("victim", ["rank 1", "leader"])
async def test_when_a_rank_dies_so_does_the_engine(tiny_dir: Path, victim: str) -> None:
    engine = await RemoteEngine.launch(tiny_dir, PAIR)
    leader, (other,) = engine.pid, children(engine.pid)
    stream = engine.generate(request(1, max_tokens=400))
    await anext(stream)
    os.kill(other if victim == "rank 1" else leader, signal.SIGKILL)
    rest = [event async for event in stream]
    assert rest[-1].finish_reason == "lost"
    await engine.ended()
    await engine.close()
    assert gone(other)


@pytest.mark.parametrize("busy", [True, False], ids=["within a step", "between two"])
async def test_a_rank_that_hangs_ends_the_engine_within_its_limit(tiny_dir: Path, busy: bool) -> None:
    engine = await RemoteEngine.launch(tiny_dir, dataclasses.replace(PAIR, rank_limit_s=3.0))
    leader, (other,) = engine.pid, children(engine.pid)
    streams = [engine.generate(request(number, max_tokens=300)) for number in range(3)]
    if busy:
        for stream in streams:
            await anext(stream)
    os.kill(other, signal.SIGSTOP)
    async with asyncio.timeout(60):  # less would be enough, were it not for other work on a machine
        rests = await asyncio.gather(*map(rest_of, streams))
        await engine.ended()
    assert [rest[-1].finish_reason for rest in rests] == ["lost"] * 3
    with pytest.raises(RequestRejected, match="not running"):
        engine.generate(request(4))
    await engine.close()
    assert gone(leader)
    assert gone(other)


async def test_an_engine_whose_rank_hangs_can_be_closed(tiny_dir: Path) -> None:
    engine = await RemoteEngine.launch(tiny_dir, dataclasses.replace(PAIR, rank_limit_s=3.0))
    leader, (other,) = engine.pid, children(engine.pid)
    os.kill(other, signal.SIGSTOP)
    async with asyncio.timeout(60):
        await engine.close()
    assert gone(leader)
    assert gone(other)


def test_what_can_not_be_shared_is_said_before_anything_is_started(tmp_path: Path) -> None:
    random_checkpoint_write(path=tmp_path / "model", config=TINY_V3)
    heads = TINY_V3["num_attention_heads"]
    with pytest.raises(ValueError, match=f"num_attention_heads = {heads} can not be shared by 3 ranks"):
        sharing_check(tmp_path / "model", dataclasses.replace(CONFIG, ranks=3))
    with pytest.raises(ValueError, match="ranks: expected at least 1"):
        EngineConfig(ranks=0)
    with pytest.raises(ValueError, match="rank_limit_s: expected a number above 0"):
        EngineConfig(ranks=2, rank_limit_s=0.0)
    with pytest.raises(ValueError, match="adapters and routing profiles need ranks = 1"):
        EngineConfig(ranks=2, adapters_max=1)


async def test_the_front_hears_why(tiny_dir: Path) -> None:
    with pytest.raises(ValueError, match="can not be shared by 3 ranks evenly"):
        await RemoteEngine.launch(tiny_dir, dataclasses.replace(CONFIG, ranks=3))


async def test_a_rank_that_can_not_load_ends_the_start(
    tiny_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "no-such-interface")
    with pytest.raises((EngineDiedError, ValueError)):
        await RemoteEngine.launch(tiny_dir, PAIR)
