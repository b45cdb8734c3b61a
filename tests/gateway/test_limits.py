"""Under concurrency nothing overshoots: neither money, nor places, nor rate."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import httpx

from core import redis_keys
from tests.gateway.world import World


async def _burst(world: World, key: str, count: int, **changes: object) -> Counter[int]:
    limits = httpx.Limits(max_connections=count)
    async with httpx.AsyncClient(base_url=world.url, limits=limits, timeout=30) as client:
        headers = {"authorization": f"Bearer {key}"}
        body = world.request(**changes)
        answers = await asyncio.gather(
            *(client.post("/v1/chat/completions", json=body, headers=headers) for _ in range(count))
        )
    return Counter(answer.status_code for answer in answers)


async def test_balance_is_never_overshot_by_200_at_once(world: World) -> None:
    hold = world_hold(world)
    tenant_id, key, record = world.tenant_make(hold * 40 + hold // 2)
    for stub in world.workers:
        stub.chunk_s = 0.2
    statuses = await _burst(world, key, 200)
    assert set(statuses) == {200, 402}
    assert 40 <= statuses[200] <= 199
    world.wait(lambda: world.account(tenant_id)["held"] == 0)
    account = world.account(tenant_id)
    assert account["inflight"] == 0
    assert account["pending"] == sum(event.charge.charge_nano for event in world.events(tenant_id))
    assert account["pending"] <= account["credit"]
    assert len(world.events(tenant_id)) == statuses[200]
    assert world.redis.hget(redis_keys.bucket(record.key_id), "inflight") == b"0"


async def test_places_are_never_overshot(world: World) -> None:
    _, key, record = world.tenant_make(10**9, max_concurrency=7)
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, sum(stub.running for stub in world.workers))
            await asyncio.sleep(0.002)

    watcher = asyncio.create_task(watch())
    statuses = await _burst(world, key, 60, say="slow 10")
    watcher.cancel()
    assert most <= 7
    assert statuses[200] >= 7
    assert set(statuses) == {200, 429}
    world.wait(lambda: world.redis.hget(redis_keys.bucket(record.key_id), "inflight") == b"0")


def test_a_client_after_another_needs_one_place_only(world: World) -> None:
    hold = world_hold(world)
    _, key, _ = world.tenant_make(hold * 2, max_concurrency=1)
    statuses = [world.post(world.request(stream=index % 2 == 0), key=key).status_code for index in range(12)]
    assert statuses == [200] * 12


async def test_rate_is_never_overshot(world: World) -> None:
    _, key, _ = world.tenant_make(10**9, requests_per_minute=30)
    began = time.monotonic()
    statuses = await _burst(world, key, 100)
    given_back = (time.monotonic() - began) * 30 / 60
    assert statuses[200] + statuses[429] == 100
    assert 30 <= statuses[200] <= 30 + given_back + 1


def world_hold(world: World) -> int:
    """What one request of ``world.request()`` holds."""
    _, key, _ = world.tenant_make(1)
    message = world.post(world.request(), key=key).json()["error"]["message"]
    dollars = message.partition("up to $")[2].partition(",")[0]
    return round(float(dollars) * 1e9)
