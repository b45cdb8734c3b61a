from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from inference.engine import (
    AsyncEngine,
    EngineConfig,
    GenerationRequest,
    RequestRejected,
    SamplingParams,
    TokenEvent,
)
from inference.engine.types import EngineStats

CONFIG = EngineConfig(page_size=8, pages=64, max_running=4, step_token_budget=64, max_queued=5)

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def engine(tiny_dir: Path) -> AsyncIterator[AsyncEngine]:
    engine = AsyncEngine.load(tiny_dir, CONFIG)
    await engine.start()
    yield engine
    await engine.close()


def request(name: str, *, max_tokens: int = 10, **params: object) -> GenerationRequest:
    prompt = tuple(20 + ord(char) for char in name)
    fields: dict[str, object] = {"max_tokens": max_tokens, "temperature": 0.0, "ignore_eos": True}
    return GenerationRequest(name, prompt, SamplingParams(**(fields | params)))  # type: ignore[arg-type]


async def collect(engine: AsyncEngine, one: GenerationRequest) -> list[TokenEvent]:
    return [event async for event in engine.generate(one)]


async def until(holds: Callable[[], bool]) -> None:
    for _ in range(4000):
        if holds():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it never happened")


async def idle(engine: AsyncEngine) -> EngineStats:
    """The statistics once nothing is running."""
    await until(lambda: not (engine.stats().running or engine.stats().queued))
    return engine.stats()


async def test_concurrent_requests_stream_and_finish(engine: AsyncEngine) -> None:
    names = [f"request-{i}" for i in range(CONFIG.max_running + CONFIG.max_queued)]
    found = await asyncio.gather(*(collect(engine, request(name)) for name in names))
    for name, events in zip(names, found, strict=True):
        assert {event.request_id for event in events} == {name}
        assert [event.completion_tokens for event in events] == list(range(1, len(events) + 1))
        assert events[-1].finish_reason == ("length" if len(events) == 10 else "stop")
        again = await collect(engine, request(name))
        assert [event.token_ids for event in again] == [event.token_ids for event in events]
    stats = await idle(engine)
    assert stats.pages_free == stats.pages_total == 64
    assert stats.generated_tokens == 2 * sum(map(len, found))
    assert stats.max_running == 4


async def test_closing_the_iterator_frees_the_pages(engine: AsyncEngine) -> None:
    stream = engine.generate(request("long", max_tokens=400))
    await anext(stream)
    assert engine.stats().running == 1
    await stream.aclose()
    assert (await idle(engine)).pages_free == 64
    assert engine.stats().generated_tokens < 400
    await collect(engine, request("long"))  # the name is free again


async def test_cancelling_the_consumer_frees_the_pages_within_one_step(engine: AsyncEngine) -> None:
    async def consume() -> None:
        async for _ in engine.generate(request("long", max_tokens=400)):
            pass

    task = asyncio.create_task(consume())
    await until(lambda: engine.stats().steps > 0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    posted = engine.stats().steps
    stats = await idle(engine)
    assert stats.pages_free == 64
    # The step in progress when the command was posted, and the publication after it.
    assert stats.steps <= posted + 2


async def test_cancelling_a_queued_request_takes_it_out(engine: AsyncEngine) -> None:
    # together they just fit the cache
    streams = [engine.generate(request(f"long-{i}", max_tokens=110)) for i in range(4)]
    for stream in streams:
        await anext(stream)
    waiting = asyncio.create_task(collect(engine, request("waits")))
    await until(lambda: engine.stats().queued == 1)
    waiting.cancel()
    await until(lambda: engine.stats().queued == 0)
    for stream in streams:
        await stream.aclose()
    assert (await idle(engine)).pages_free == 64


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (GenerationRequest("a", (), SamplingParams(max_tokens=1)), "empty_prompt"),
        (GenerationRequest("a", (264,), SamplingParams(max_tokens=1)), "invalid_token"),
        (GenerationRequest("a", (-1,), SamplingParams(max_tokens=1)), "invalid_token"),
        (GenerationRequest("a", (9,) * 500, SamplingParams(max_tokens=13)), "context_length_exceeded"),
        (request("a", max_tokens=0), "invalid_params"),
        (request("a", temperature=-0.1), "invalid_params"),
        (request("a", temperature=float("nan")), "invalid_params"),
        (request("a", top_p=0.0), "invalid_params"),
        (request("a", top_p=1.1), "invalid_params"),
        (request("a", stop=("",)), "invalid_params"),
    ],
)
async def test_what_can_not_be_served_is_rejected_at_once(
    engine: AsyncEngine, bad: GenerationRequest, code: str
) -> None:
    with pytest.raises(RequestRejected) as caught:
        engine.generate(bad)
    assert caught.value.code == code
    assert engine.stats().steps == 0


async def test_the_whole_context_can_be_used(engine: AsyncEngine) -> None:
    assert engine.max_model_len == 512
    events = await collect(
        engine, GenerationRequest("full", (9,) * 500, SamplingParams(max_tokens=12, temperature=0))
    )
    assert events[-1].completion_tokens == 12


async def test_a_request_beyond_the_queue_is_rejected(engine: AsyncEngine) -> None:
    tasks = [
        asyncio.create_task(collect(engine, request(f"long-{i}", max_tokens=60)))
        for i in range(CONFIG.max_running + CONFIG.max_queued)
    ]
    await asyncio.sleep(0)
    with pytest.raises(RequestRejected) as caught:
        engine.generate(request("one-more"))
    assert caught.value.code == "queue_full"
    crowd = [request(f"choice-{i}") for i in range(len(tasks) + 1)]
    with pytest.raises(RequestRejected, match=f"choices: expected at most {len(tasks)}") as caught:
        engine.stream(crowd)  # waiting would not help
    assert caught.value.code == "invalid_params"
    await asyncio.gather(*tasks)
    assert await collect(engine, request("one-more"))


async def test_a_reader_that_is_behind_gets_all_that_has_come_at_once(engine: AsyncEngine) -> None:
    crowd = [request(f"choice-{i}", max_tokens=20) for i in range(3)]
    alone = [await collect(engine, one) for one in crowd]
    batches = engine.stream(crowd)
    found = [await anext(batches)]
    await until(lambda: not (engine.stats().running or engine.stats().queued))
    await asyncio.sleep(0.05)
    found += [batch async for batch in batches]
    assert len(found) == 2
    for number, expected in enumerate(alone):
        events = [event for batch in found for place, event in batch if place == number]
        assert [event.token_ids for event in events] == [event.token_ids for event in expected]
        assert events[-1].finish_reason == expected[-1].finish_reason


async def test_two_requests_of_one_name_are_not_mixed(engine: AsyncEngine) -> None:
    first = engine.generate(request("twin", max_tokens=100))
    await anext(first)
    with pytest.raises(RequestRejected) as caught:
        engine.generate(request("twin"))
    assert caught.value.code == "duplicate_request"
    await first.aclose()


async def test_closing_ends_everybody(tiny_dir: Path) -> None:
    engine = AsyncEngine.load(tiny_dir, CONFIG)
    await engine.start()
    tasks = [asyncio.create_task(collect(engine, request(f"long-{i}", max_tokens=400))) for i in range(6)]
    await until(lambda: engine.stats().running == 4)
    await engine.close()
    for events in await asyncio.gather(*tasks):
        assert events[-1].finish_reason == "cancelled"
    with pytest.raises(RequestRejected) as caught:
        engine.generate(request("late"))
    assert caught.value.code == "engine_closed"
    await engine.close()  # twice is fine


async def test_the_loop_survives_a_failure_outside_the_model(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = type(engine._engine._scheduler)
    with monkeypatch.context() as patch:
        patch.setattr(scheduler, "record", lambda *_: 1 / 0)
        events = await collect(engine, request("unlucky"))
        assert [event.finish_reason for event in events] == ["lost"]
    events = await collect(engine, request("lucky"))
    assert events[-1].finish_reason == "length"
    assert (await idle(engine)).pages_free == 64


async def test_nobody_waits_for_a_thread_that_died(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = engine.generate(request("in-flight", max_tokens=400))
    await anext(stream)
    monkeypatch.setattr(engine._engine, "submit", lambda _: 1 / 0)
    events = await collect(engine, request("unlucky"))
    assert [event.finish_reason for event in events] == ["lost"]
    assert [event.finish_reason async for event in stream][-1] == "lost"
    with pytest.raises(RequestRejected) as caught:
        engine.generate(request("late"))
    assert caught.value.code == "engine_closed"
