"""Reconciliation finds what differs between journals, records and ledger, and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest

from core import redis_keys
from core.ids import new_id
from metering.events import UsageEvent
from metering.journals import JournalReader
from tests.metering.conftest import MeterMaker
from tests.metering.journal_server import JournalServer
from tests.metering.world import World

SECRET = os.environ["TOKENWORKS_DISPATCH_SECRET"]


class Office:
    """Two enrolled workers of one partner, their journals, and what was billed for them."""

    def __init__(self, world: World, workers: list[JournalServer]) -> None:
        from partners.models import Partner, Pool, Worker
        from tenants.scope import system_scope

        self.world = world
        self.workers = workers
        with system_scope():
            partner = Partner.objects.create(
                id=world.partner_id, slug="north", name="North", jurisdiction="SE"
            )
            pool = Pool.objects.create(partner=partner, slug="north-1", region="se-1", accelerator="cpu")
            for index, worker in enumerate(workers):
                Worker.objects.create(
                    id=worker.worker_id,
                    pool=pool,
                    name=f"worker-{index}",
                    endpoint=worker.endpoint,
                    public_key=worker.key.public_text,
                    release_digest="d" * 64,
                    release_slug="nano",
                    capacity={},
                    max_running=1,
                )

    def serve(self, index: int, *, counts: tuple[int, int, int] = (100, 10, 9)) -> UsageEvent:
        """Worker ``index`` serves and journals a request, and a gateway settles it."""
        worker = self.workers[index]
        event = self.world.event(
            worker_id=worker.worker_id,
            prompt_tokens=counts[0],
            cached_tokens=counts[1],
            completion_tokens=counts[2],
        )
        worker.serve(event.request_id, counts=counts)
        self.world.settle(event)
        return event

    def compare(self) -> tuple[bool, dict[str, object]]:
        """Whether all agrees, and the lists of the first worker."""
        from metering.reconcile.report import reconcile

        reader = JournalReader(dispatch_secret=SECRET)
        report = reconcile(client=self.world.redis, journals=reader)
        reader.close()
        first = next(tally for tally in report.workers if tally.worker_id == self.workers[0].worker_id)
        return report.agrees, {
            name: getattr(first, name)
            for name in ("missing", "extra", "mismatched", "open", "failed", "failed_over", "unreachable")
            if getattr(first, name)
        }


@pytest.fixture
def office(world: World, tmp_path: Path, meter_make: MeterMaker) -> Iterator[Office]:
    """Three requests served, billed and posted."""
    with ExitStack() as stack:
        workers = [stack.enter_context(JournalServer(tmp_path, SECRET)) for _ in range(2)]
        office = Office(world, workers)
        for index in (0, 0, 1):
            office.serve(index)
        meter_make().step()
        yield office


def test_all_agrees(office: Office) -> None:
    office.workers[0].serve(new_id("req"), finish="error")
    office.workers[0].serve(new_id("req"), finish="cancelled", counts=(0, 0, 0))  # it left the queue
    elsewhere = office.serve(1)
    office.workers[0].serve(elsewhere.request_id, finish="cancelled")
    agrees, found = office.compare()
    assert (agrees, found) == (True, {"failed": 2, "open": 1})


def test_a_request_billed_to_another_worker_is_no_difference(office: Office, meter_make: MeterMaker) -> None:
    elsewhere = office.serve(1)
    office.workers[0].serve(elsewhere.request_id, finish="cancelled")
    meter_make().step()
    assert office.compare() == (True, {"failed_over": 1})


def _not_billed(office: Office) -> dict[str, object]:
    request_id = new_id("req")
    office.workers[0].serve(request_id)
    return {"missing": [request_id]}


def _not_journalled(office: Office) -> dict[str, object]:
    request_id = next(iter(office.workers[0].signed))
    del office.workers[0].signed[request_id]
    return {"extra": [request_id]}


def _other_counts(office: Office) -> dict[str, object]:
    request_id = next(iter(office.workers[0].signed))
    office.workers[0].serve(request_id, counts=(100, 10, 8))
    return {"mismatched": [request_id]}


def _forged(office: Office) -> dict[str, object]:
    request_id = next(iter(office.workers[0].signed))
    office.workers[0].forge(request_id, completion_tokens=10)
    return {"mismatched": [request_id]}


def _unreachable(office: Office) -> dict[str, object]:
    office.workers[0].stop()
    return {"unreachable": "ConnectError"}


@pytest.mark.parametrize("spoil", [_not_billed, _not_journalled, _other_counts, _forged, _unreachable])
def test_each_difference_is_named(office: Office, spoil: Callable[[Office], dict[str, object]]) -> None:
    expected = spoil(office)
    assert office.compare() == (False, expected)


def test_money_that_no_record_explains_is_found(office: Office, postgres_superuser_url: str) -> None:
    with psycopg.connect(postgres_superuser_url, autocommit=True) as superuser:
        superuser.execute("SET session_replication_role = replica")
        superuser.execute("DELETE FROM ledger_transfer WHERE id = (SELECT max(id) FROM ledger_transfer)")
    from metering.reconcile.ledger_side import ledger_tally

    tally = ledger_tally()
    assert not tally.agrees
    assert tally.total_nano == 0
    assert len(tally.off_balance) == 2
    assert any(not line.agrees for line in tally.sums)


def test_command_prints_and_says_by_its_exit_code(office: Office) -> None:
    command = [sys.executable, "-m", "metering.reconcile"]
    good = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert (good.returncode, good.stderr) == (0, "")
    assert "Journals, records and ledger agree." in good.stdout
    expected = _not_billed(office)
    bad = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False, timeout=200)
    report = json.loads(bad.stdout)
    assert (bad.returncode, report["agrees"]) == (1, False)
    assert {"missing": report["workers"][0]["missing"]} == expected
    assert office.world.redis.xlen(redis_keys.USAGE_STREAM) == 0
