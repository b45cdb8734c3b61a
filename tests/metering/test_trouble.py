"""Poison, outages and dead meters: nothing blocks the stream, nothing is lost, nobody pays for poison."""

from __future__ import annotations

from functools import partial

import psycopg
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from core import redis_keys
from core.ids import new_id
from metering.dead import dead_letter_retry, dead_letters
from metering.posting_loop import PostingLoop
from stack.roles import RoleUrls
from tests.metering.conftest import MeterMaker
from tests.metering.world import World, raw_event


def test_poison_is_buried_and_the_rest_is_posted(world: World, meter_make: MeterMaker) -> None:
    good = [world.event() for _ in range(5)]
    poison = {
        "malformed": b"{not json",
        "should be": raw_event(world.event(), prompt_tokens=999),
        "no ledger account": raw_event(world.event(partner_id=new_id("par"))),
        "unsupported Unicode": raw_event(world.event(), receipt={"text": "\0"}),
        "too long": raw_event(world.event(), model="m" * 64),
        "differs": raw_event(world.event(tenant_id=new_id("ten"))),
    }
    for event, raw in zip([*good, world.event()], poison.values(), strict=True):
        world.settle(event)
        world.settle_raw(new_id("req"), event.charge.charge_nano, raw)
    meter = meter_make()
    while meter.step():
        pass
    assert len(world.records()) == 6
    letters = dead_letters(world.redis)
    assert len(letters) == len(poison)
    for part in poison:
        assert any(part in letter.reason for letter in letters), (part, letters)
    assert {letter.event for letter in letters} == set(poison.values())
    assert world.available() == world.balance()
    assert world.account()["pending"] == world.redis.xlen(redis_keys.USAGE_STREAM) == 0


def test_a_second_charge_for_a_posted_request_is_buried(world: World, meter_make: MeterMaker) -> None:
    first = world.event(completion_tokens=5)
    world.settle(first)
    meter_make().step()
    world.redis.delete(redis_keys.settled(first.request_id))
    again = world.event(completion_tokens=500, request_id=first.request_id)
    world.settle(again)
    world.redis.delete(redis_keys.settled(first.request_id))
    world.settle(first)
    meter_make().step()
    assert world.records() == {first.request_id: first.charge.charge_nano}
    [letter] = dead_letters(world.redis)
    assert "posted before" in letter.reason
    assert (world.account()["pending"], world.available()) == (0, world.balance())


def test_retried_letter_is_posted_once(world: World, meter_make: MeterMaker) -> None:
    partner_id = new_id("par")
    event = world.event(partner_id=partner_id)
    world.settle(event)
    meter_make().step()
    [letter] = dead_letters(world.redis)
    assert world.available() == world.balance() == 1_000_000_000
    World(database=world.database, redis=world.redis, partner_id=partner_id).open(1)
    assert dead_letter_retry(world.redis, letter)
    assert not dead_letter_retry(world.redis, letter)
    assert world.account()["pending"] == event.charge.charge_nano
    meter_make().step()
    assert world.records() == {event.request_id: event.charge.charge_nano}
    assert world.balance("partner", partner_id) == event.charge.share_nano
    assert dead_letters(world.redis) == []


def test_another_meter_takes_over_what_a_dead_one_left(world: World, meter_make: MeterMaker) -> None:
    event = world.event()
    world.settle(event)
    dead = meter_make("meter-7")
    dead.post(dead.read())  # committed, and never acknowledged
    heir = meter_make("meter-0")
    assert heir.step() == 0
    assert len(heir._stream.abandoned(limit=10, idle_ms=0)) == 1
    assert meter_make("meter-0").step() == 1
    assert world.records() == {event.request_id: event.charge.charge_nano}
    assert world.available() == world.balance()


def test_lost_database_connection_is_made_again(
    world: World, postgres_urls: RoleUrls, postgres_superuser_url: str
) -> None:
    loop = PostingLoop(
        world.redis, partial(psycopg.connect, postgres_urls.system, autocommit=True), "meter-0"
    )
    world.settle(world.event())
    loop.step()
    with psycopg.connect(postgres_superuser_url) as superuser:
        superuser.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE usename = 'tokenworks_system' AND pid <> %s",
            (world.database.info.backend_pid,),
        )
    world.settle(world.event())
    with pytest.raises(psycopg.OperationalError):
        loop.step()
    loop.repair()
    loop.step()
    loop.repair()
    assert len(world.records()) == 2
    assert world.available() == world.balance()


def test_a_broken_ledger_keeps_events_instead_of_burying_them(
    world: World, meter_make: MeterMaker, postgres_superuser_url: str
) -> None:
    event = world.event()
    world.settle(event)
    with psycopg.connect(postgres_superuser_url, autocommit=True) as superuser:
        superuser.execute("ALTER TABLE metering_usagerecord RENAME TO elsewhere")
        try:
            with pytest.raises(psycopg.errors.UndefinedTable):
                meter_make().step()
        finally:
            superuser.execute("ALTER TABLE elsewhere RENAME TO metering_usagerecord")
    assert meter_make().step() == 1
    assert world.records() == {event.request_id: event.charge.charge_nano}
    assert dead_letters(world.redis) == []


def test_unreachable_redis_raises_and_posts_nothing(world: World, postgres_urls: RoleUrls) -> None:
    nowhere = redis.Redis(port=1, retry=Retry(NoBackoff(), 0))
    loop = PostingLoop(nowhere, partial(psycopg.connect, postgres_urls.system, autocommit=True), "meter-0")
    with pytest.raises(redis.exceptions.ConnectionError):
        loop.step()
    loop.repair()
    assert world.records() == {}


def test_an_older_balance_never_overwrites_a_newer(world: World, meter_make: MeterMaker) -> None:
    world.settle(world.event())
    meter = meter_make()
    outcome = meter.post(meter.read())
    world.redis.hset(redis_keys.account(world.tenant_id), mapping={"credit": 77, "version": 99})
    meter.finish(outcome)
    account = world.account()
    assert (account["credit"], account["version"], account["pending"]) == (77, 99, 0)
