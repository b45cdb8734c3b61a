"""Holds of dead gateways end by the workers' word, over real HTTP, and only by it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest

from billing.rating import Price
from core import redis_keys
from core.clock import clock
from core.ids import new_id
from metering.holds import HoldContext, PricedWorker
from metering.journals import JournalReader, WorkerAddress
from metering.orphans import OrphanHolds
from metering.sweeper import Sweeper
from tests.metering.conftest import MeterMaker
from tests.metering.journal_server import JournalServer
from tests.metering.world import PRICE, World
from transparency.receipts import verify

SECRET = "dispatch-secret"
DAY_MS = 24 * 3_600_000


class Scene:
    """Two workers with journals, and a sweeper that knows them."""

    def __init__(self, world: World, workers: list[JournalServer]) -> None:
        self.world = world
        self.workers = workers
        self.retired: set[str] = set()
        self.prices = {worker.worker_id: _priced(index) for index, worker in enumerate(workers)}
        self.reader = JournalReader(dispatch_secret=SECRET)
        self.sweeper = Sweeper(OrphanHolds(world.redis), self.reader, self.known)

    def known(self) -> dict[str, WorkerAddress]:
        """The workers as they are enrolled."""
        return {
            worker.worker_id: WorkerAddress(
                worker_id=worker.worker_id,
                partner_id=self.world.partner_id,
                name="worker",
                endpoint=worker.endpoint,
                public_key=worker.key.public_text,
                retired=worker.worker_id in self.retired,
            )
            for worker in self.workers
        }

    def orphan(self, *, age_ms: int = 6_000, **fields: str | int) -> str:
        """A hold whose gateway is gone."""
        context = HoldContext(
            endpoint="/v1/chat/completions",
            model="tokenworks-nano",
            release_id=new_id("rel"),
            release_digest="d" * 64,
            prompt_tokens_max=1_000,
            completion_tokens_max=50,
            received_at_ms=clock.now_ms() - age_ms,
            workers=tuple(
                PricedWorker(
                    worker_id=worker.worker_id,
                    partner_id=self.world.partner_id,
                    pool_id=new_id("pol"),
                    price=self.prices[worker.worker_id],
                )
                for worker in self.workers
            ),
            decision=msgspec.Raw(b'{"reason":"lowest cost"}'),
        )
        text = msgspec.json.encode(context).decode()
        return self.world.hold(1_000_000, created_ms=clock.now_ms() - age_ms, **{"context": text, **fields})

    def sweep(self) -> tuple[int, int, int]:
        """Settled, voided, kept."""
        report = self.sweeper.sweep()
        return report.settled, report.voided, report.kept


def _priced(index: int) -> Price:
    return msgspec.structs.replace(PRICE, output_nano_per_mtok=100_000_000 * (index + 1))


@pytest.fixture
def scene(world: World, tmp_path: Path) -> Iterator[Scene]:
    with ExitStack() as stack:
        workers = [stack.enter_context(JournalServer(tmp_path, SECRET)) for _ in range(2)]
        scene = Scene(world, workers)
        stack.callback(scene.reader.close)
        yield scene


def test_served_requests_are_charged_and_others_voided(scene: Scene, meter_make: MeterMaker) -> None:
    world = scene.world
    served, lost, alive = scene.orphan(), scene.orphan(), scene.orphan(gateway_id="gw_alive")
    young = scene.orphan(age_ms=4_000)
    world.redis.set(redis_keys.gateway_alive("gw_alive"), 1)
    scene.workers[1].serve(served, counts=(100, 0, 9))
    assert scene.sweep() == (1, 1, 0)
    assert scene.sweep() == (0, 0, 0)
    assert {key for key in (served, lost, alive, young) if world.redis.exists(redis_keys.hold(key))} == {
        alive,
        young,
    }
    meter_make().step()
    charge = 10_000 + 1_800  # 100 tokens at $0.10 and 9 at $0.20 per million
    assert world.records() == {served: charge + charge // 20}
    assert world.available() == world.balance() - 2_000_000
    row: Any = world.database.execute(
        "SELECT witness, worker_id, decision, receipt FROM metering_usagerecord"
    ).fetchone()
    assert row[:3] == ("worker", scene.workers[1].worker_id, {"reason": "lowest cost"})
    assert verify(row[3]) == []


def test_uncertain_requests_wait(scene: Scene) -> None:
    request_id = scene.orphan()
    scene.workers[0].busy = True
    assert scene.sweep() == (0, 0, 1)
    scene.workers[0].busy = False
    scene.workers[0].serve(request_id)
    scene.workers[0].forge(request_id, completion_tokens=40)
    assert scene.sweep() == (0, 0, 1)
    scene.workers[0].serve(request_id)
    assert scene.sweep() == (1, 0, 0)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 3\r\n\r\nabc",
        b'HTTP/1.1 200 OK\r\ncontent-length: 19\r\n\r\n{"signature":"\xff\xff"}',
        b"HTTP/1.1 302 Found\r\nlocation: http://\xff\r\ncontent-length: 0\r\n\r\n",
        b"no HTTP at all\r\n\r\n",
    ],
    ids=["gzip", "utf8", "redirect", "nonsense"],
)
def test_one_workers_nonsense_keeps_only_its_own_requests_waiting(scene: Scene, answer: bytes) -> None:
    waiting = scene.orphan(age_ms=7_000)
    served = scene.orphan()
    scene.workers[0].raw = answer
    scene.workers[1].serve(served)
    assert scene.sweep() == (1, 0, 1)
    assert scene.world.redis.exists(redis_keys.hold(waiting))


def test_endless_answer_is_not_read_to_its_end(scene: Scene) -> None:
    scene.orphan()
    scene.workers[0].raw = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n"
    scene.workers[0].endless = b"x" * 65_536
    assert scene.sweep() == (0, 0, 1)
    assert scene.workers[0].written < 32 * 2**20


def test_unreachable_worker_is_waited_for_until_it_is_retired(scene: Scene) -> None:
    first = scene.orphan()
    second = scene.orphan()
    scene.workers[0].stop()
    assert scene.sweep() == (0, 0, 2)
    scene.workers[1].serve(first)
    assert scene.sweep() == (1, 0, 1)
    scene.retired.add(scene.workers[0].worker_id)
    assert scene.sweep() == (0, 1, 0)
    assert not scene.world.redis.exists(redis_keys.hold(second))


def test_unreachable_worker_is_waited_for_a_day_at_most(scene: Scene) -> None:
    scene.orphan(age_ms=DAY_MS + 1_000)
    scene.orphan(age_ms=DAY_MS - 60_000)
    scene.workers[0].stop()
    assert scene.sweep() == (0, 1, 1)


def test_unreadable_hold_waits_a_day(scene: Scene) -> None:
    scene.orphan(context="{}")
    scene.orphan(context="{}", age_ms=DAY_MS + 1_000)
    assert scene.sweep() == (0, 1, 1)
    assert scene.world.account()["held"] == 1_000_000


def test_a_living_gateways_stale_hold_is_swept_too(scene: Scene) -> None:
    scene.world.redis.set(redis_keys.gateway_alive("gw_alive"), 1)
    scene.orphan(gateway_id="gw_alive", age_ms=16 * 60_000)
    assert scene.sweep() == (0, 1, 0)


def test_counts_are_bounded_by_the_hold(scene: Scene, meter_make: MeterMaker) -> None:
    request_id = scene.orphan()
    scene.workers[0].serve(request_id, counts=(5_000, 0, 5_000))
    scene.sweep()
    meter_make().step()
    row = scene.world.database.execute(
        "SELECT prompt_tokens, completion_tokens FROM metering_usagerecord"
    ).fetchone()
    assert row == (1_000, 50)


def test_a_finished_answer_beats_a_broken_attempt(scene: Scene, meter_make: MeterMaker) -> None:
    request_id, broken_only = scene.orphan(), scene.orphan()
    scene.workers[0].serve(request_id, counts=(100, 0, 1), finish="error")
    scene.workers[1].serve(request_id, counts=(100, 0, 9))
    scene.workers[0].serve(broken_only, counts=(100, 0, 4), finish="cancelled")
    assert scene.sweep() == (2, 0, 0)
    meter_make().step()
    rows = scene.world.database.execute("SELECT request_id, completion_tokens FROM metering_usagerecord")
    assert dict(rows.fetchall()) == {request_id: 9, broken_only: 4}


def test_gateway_that_settles_first_wins(scene: Scene) -> None:
    request_id = scene.orphan()
    scene.workers[0].serve(request_id)
    orphans = list(OrphanHolds(scene.world.redis).find())
    scene.world.settle(scene.world.event(request_id=request_id))
    assert not OrphanHolds(scene.world.redis).void(orphans[0])
    assert scene.sweep() == (0, 0, 0)
    assert scene.world.redis.xlen(redis_keys.USAGE_STREAM) == 1
