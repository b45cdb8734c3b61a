"""The settle script on a real Valkey: once, exact, and never below zero."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import psycopg
import pytest
import redis

from core import redis_keys
from metering.events import ENCODER
from metering.holds import settle_args
from tests.metering.world import World


@pytest.fixture
def world(fresh_redis_url: str) -> Iterator[World]:
    """A tenant known to Redis only: these tests need no ledger."""
    with redis.Redis.from_url(fresh_redis_url) as client:
        world = World(database=cast(psycopg.Connection[Any], None), redis=client)
        client.hset(redis_keys.account(world.tenant_id), mapping={"credit": 10**9, "version": 1})
        yield world


def inflight(world: World) -> tuple[int, int]:
    """Requests held, by the tenant's account and by the key's bucket."""
    of_key: Any = world.redis.hget(redis_keys.bucket(world.key_id), "inflight")
    return world.account().get("inflight", 0), int(of_key or 0)


def test_charge_replaces_hold(world: World) -> None:
    request_id = world.hold(5_000)
    assert (world.available(), inflight(world)) == (10**9 - 5_000, (1, 1))
    event = world.event(request_id=request_id, prompt_tokens=10, cached_tokens=0, completion_tokens=2)
    assert world.settle(event)
    assert world.account()["held"] == 0
    assert world.available() == 10**9 - event.charge.charge_nano
    assert inflight(world) == (0, 0)
    assert world.redis.zcard(redis_keys.HOLDS) == 0
    assert not world.redis.exists(redis_keys.hold(request_id))
    [(_, fields)] = cast(Any, world.redis.xrange(redis_keys.USAGE_STREAM))
    assert fields == {
        b"event": ENCODER.encode(event),
        b"request_id": request_id.encode(),
        b"tenant_id": world.tenant_id.encode(),
        b"charge_nano": str(event.charge.charge_nano).encode(),
    }


def test_void_releases_and_owes_nothing(world: World) -> None:
    request_id = world.hold(5_000)
    assert world.settle_raw(request_id, 0, b"")
    assert not world.settle_raw(request_id, 0, b"")
    assert (world.available(), inflight(world)) == (10**9, (0, 0))
    assert world.redis.xlen(redis_keys.USAGE_STREAM) == 0


def test_charge_follows_void_but_nothing_follows_charge(world: World) -> None:
    request_id = world.hold(5_000)
    event = world.event(request_id=request_id)
    assert world.settle_raw(request_id, 0, b"")
    assert world.settle(event)
    assert not world.settle(event)
    assert not world.settle_raw(request_id, 0, b"")
    assert world.available() == 10**9 - event.charge.charge_nano
    assert world.redis.xlen(redis_keys.USAGE_STREAM) == 1


def test_amounts_beyond_a_double_stay_exact(world: World) -> None:
    amount = 2**53 + 1
    world.redis.hset(redis_keys.account(world.tenant_id), "held", 1)
    request_id = world.hold(amount)
    world.settle_raw(request_id, amount, b"{}")
    assert (world.account()["held"], world.account()["pending"]) == (1, amount)


def test_lost_account_never_goes_below_zero(world: World) -> None:
    request_id = world.hold(5_000)
    world.redis.delete(redis_keys.account(world.tenant_id), redis_keys.bucket(world.key_id))
    world.settle_raw(request_id, 0, b"")
    assert (world.account().get("held", 0), inflight(world)) == (0, (0, 0))


def test_lost_hold_still_owes(world: World) -> None:
    event = world.event()
    assert world.settle(event)
    assert world.account()["pending"] == event.charge.charge_nano
    assert inflight(world) == (0, 0)


def test_a_charge_without_its_event_is_refused() -> None:
    with pytest.raises(ValueError, match="usage event"):
        settle_args(request_id="req_x", charge_nano=1, tokens=0, event=b"")
