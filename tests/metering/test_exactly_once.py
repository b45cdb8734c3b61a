"""Every event reaches the ledger once, whatever repeats, comes late, or dies halfway."""

from __future__ import annotations

import random

from core import redis_keys
from tests.metering.conftest import MeterMaker
from tests.metering.world import World


def drain(meter_make: MeterMaker) -> None:
    """A meter that starts after everything else is dead, and finishes what there is."""
    meter = meter_make("meter-0")
    while meter.step():
        pass


def test_event_moves_share_and_levy(world: World, meter_make: MeterMaker) -> None:
    event = world.event()
    assert world.settle(event)
    assert world.account()["pending"] == event.charge.charge_nano
    assert meter_make().step() == 1
    assert world.records() == {event.request_id: event.charge.charge_nano}
    assert world.balance() == 1_000_000_000 - event.charge.charge_nano
    assert world.balance("partner", world.partner_id) == event.charge.share_nano
    assert world.ledger_sum() == 0
    account = world.account()
    assert (account["credit"], account["pending"]) == (world.balance(), 0)
    assert world.redis.xlen(redis_keys.USAGE_STREAM) == 0


def test_settling_twice_is_settling_once(world: World, meter_make: MeterMaker) -> None:
    event = world.event()
    assert [world.settle(event) for _ in range(3)] == [True, False, False]
    drain(meter_make)
    assert world.balance() == 1_000_000_000 - event.charge.charge_nano


def test_replay_after_redis_lost_its_data_charges_nothing_twice(world: World, meter_make: MeterMaker) -> None:
    events = [world.event(completion_tokens=tokens) for tokens in range(20)]
    for event in events:
        world.settle(event)
    drain(meter_make)
    before = world.balance()
    world.redis.flushall()
    world.redis.hset(redis_keys.account(world.tenant_id), mapping={"credit": before, "version": 2})
    for event in random.Random(7).sample(events, 20):
        assert world.settle(event)
    drain(meter_make)
    assert world.balance() == before == world.available()
    assert world.account()["pending"] == 0


def test_two_meters_with_one_batch_subtract_it_once(world: World, meter_make: MeterMaker) -> None:
    world.settle(world.event())
    slow, heir = meter_make("meter-0"), meter_make("meter-1")
    outcome = slow.post(slow.read())
    again = heir.post(heir._stream.abandoned(limit=10, idle_ms=0))
    later = world.event()
    world.settle(later)
    slow.finish(outcome)
    heir.finish(again)
    assert (outcome.fresh, again.fresh) == (1, 0)
    assert world.account()["pending"] == later.charge.charge_nano
