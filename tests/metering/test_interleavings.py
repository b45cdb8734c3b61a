"""Any order of settling, posting, dying and coming back ends with every event in the ledger once."""

from __future__ import annotations

from typing import Any

import psycopg
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core import redis_keys
from metering.events import UsageEvent
from tests.metering.conftest import MeterMaker
from tests.metering.world import World

EVENTS = 8
GRANT = 1_000_000

# What may happen, to a request or to one of two meters. A meter "dies" at the stage the name says; its next
# life begins with a new Meter of the same name, as the process does.
ACTIONS = ("settle", "void", "post", "die_after_read", "die_after_commit", "lose_redis")
steps = st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, EVENTS - 1)), max_size=24)


class Story:
    """One run: what was settled, whatever happened to it since."""

    def __init__(self, world: World, meter_make: MeterMaker) -> None:
        self.world = world
        self.meter_make = meter_make
        self.events = [world.event(completion_tokens=7 * index) for index in range(EVENTS)]
        self.settled: dict[str, UsageEvent] = {}

    def happen(self, action: str, index: int) -> None:
        """Let one action happen, to request ``index`` or to meter ``index`` modulo 2."""
        event = self.events[index]
        consumer = f"meter-{index % 2}"
        match action:
            case "settle":
                self.world.settle(event)
                self.settled[event.request_id] = event
            case "void":
                self.world.settle_raw(event.request_id, 0, b"")
            case "post":
                self.meter_make(consumer, batch=3).step()
            case "die_after_read":
                self.meter_make(consumer, batch=3).read()
            case "die_after_commit":
                meter = self.meter_make(consumer, batch=3)
                meter.post(meter.read())
            case "lose_redis":
                self._lose_redis()

    def _lose_redis(self) -> None:
        """Valkey comes back empty: the directory publishes the balance, gateways settle again."""
        self.world.redis.flushall()
        row = self.world.database.execute(
            "SELECT balance_nano, version FROM ledger_account WHERE owner_id = %s", (self.world.tenant_id,)
        ).fetchone()
        assert row is not None
        self.world.redis.hset(
            redis_keys.account(self.world.tenant_id), mapping={"credit": row[0], "version": row[1]}
        )
        for event in self.settled.values():
            self.world.settle(event)

    def end(self) -> None:
        """Both meters live once more and finish."""
        for consumer in ("meter-0", "meter-1"):
            meter = self.meter_make(consumer)
            while meter.step():
                pass


@settings(
    max_examples=15,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps)
def test_ledger_equals_unique_events(
    database: psycopg.Connection[Any],
    valkey: redis.Redis,
    meter_make: MeterMaker,
    actions: list[tuple[str, int]],
) -> None:
    valkey.flushall()
    world = World(database=database, redis=valkey).open(GRANT)
    story = Story(world, meter_make)
    for action, index in actions:
        story.happen(action, index)
    story.end()
    due = {request_id: event.charge.charge_nano for request_id, event in story.settled.items()}
    assert world.records() == due
    assert world.balance() == GRANT - sum(due.values())
    shares = sum(event.charge.share_nano for event in story.settled.values())
    assert world.balance("partner", world.partner_id) == shares
    assert world.ledger_sum() == 0
    assert world.available() == world.balance()
    assert valkey.xlen(redis_keys.USAGE_STREAM) == 0
    assert not valkey.exists(redis_keys.USAGE_DEAD)
