"""How many usage events a second one meter posts to the ledger, with PostgreSQL and Valkey durable.

``python -m bench.metering_throughput [--events N] [--batch N]``. The stream is filled first, then the meter
drains it, everything on: validation, rating again, records, transfers, balances, acknowledgement. The peer is
the same meter with one transaction an event, in the same run. Afterwards the ledger is checked to the
nano-dollar, or the bench fails.
"""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import django
import psutil
import psycopg
import redis
from django.core.management import call_command
from django.db import connections

from bench.report import compare, report
from billing.rating import Price, charge_for
from core.clock import clock
from core.ids import new_id, new_ids
from metering.events import ENCODER, UsageEvent
from metering.holds import SETTLE_LUA, settle_args, settle_keys
from metering.meter import Meter
from metering.posting import Poster
from metering.stream import UsageStream
from stack.ports import free_port
from stack.roles import passwords_load, roles_ensure
from stack.services import EmbeddedPostgres, EmbeddedValkey

TENANTS, PARTNERS = 50, 3
TARGET_PER_S = 20_000
PRICE = Price(
    offer_id=new_id("off"),
    input_nano_per_mtok=100_000_000,
    cached_input_nano_per_mtok=100_000_000,
    output_nano_per_mtok=100_000_000,
    levy_ppm=50_000,
)


@contextmanager
def services() -> Iterator[tuple[str, str]]:
    """A migrated PostgreSQL (URL of the system role) and a Valkey (URL), both durable, gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="tokenworks-bench-"))
    folder.chmod(0o711)
    postgres = EmbeddedPostgres(folder / "postgres", free_port(), durable=True)
    valkey = EmbeddedValkey(folder / "valkey", free_port())
    try:
        postgres.start()
        valkey.start()
        urls = roles_ensure(postgres.url(), passwords_load(folder / "roles"))
        os.environ |= {
            **urls.environment(),
            "REDIS_URL": valkey.url,
            "TOKENWORKS_SECRET_KEY": secrets.token_hex(32),
            "TOKENWORKS_DISPATCH_SECRET": secrets.token_hex(32),
            "DJANGO_SETTINGS_MODULE": "config.settings",
        }
        _migrate()
        yield urls.system, valkey.url
    finally:
        valkey.stop()
        postgres.stop()
        shutil.rmtree(folder)


def _migrate() -> None:
    django.setup()
    call_command("migrate", database="owner", verbosity=0, interactive=False)
    connections.close_all()


def accounts_open(database: psycopg.Connection[Any]) -> tuple[list[str], list[str]]:
    """Ledger accounts of tenants, partners and the foundation; returns tenant and partner ids."""
    tenants, partners = new_ids("ten", TENANTS), new_ids("par", PARTNERS)
    rows = [
        *(("tenant", owner, owner) for owner in tenants),
        *(("partner", owner, None) for owner in partners),
        ("foundation", "foundation", None),
    ]
    with database.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO ledger_account (id, kind, owner_id, tenant_id, balance_nano, version)"
            " VALUES (%s, %s, %s, %s, 0, 0)",
            [(new_id("acc"), *row) for row in rows],
        )
    return tenants, partners


def stream_fill(client: redis.Redis, count: int, tenants: list[str], partners: list[str]) -> int:
    """Settle ``count`` events as gateways do, receipts of realistic size. Returns what they cost."""
    settle_sha = client.script_load(SETTLE_LUA)
    total_nano, key_id = 0, new_id("key")
    pipeline = client.pipeline(transaction=False)
    for index, request_id in enumerate(new_ids("req", count)):
        tenant_id = tenants[index % len(tenants)]
        event = _event(request_id, tenant_id, partners[index % len(partners)], key_id, index)
        total_nano += event.charge.charge_nano
        keys = settle_keys(request_id=request_id, tenant_id=tenant_id, key_id=key_id)
        args = settle_args(
            request_id=request_id,
            charge_nano=event.charge.charge_nano,
            tokens=0,
            event=ENCODER.encode(event),
        )
        pipeline.evalsha(settle_sha, len(keys), *keys, *args)
        if index % 500 == 499:
            pipeline.execute()
    pipeline.execute()
    return total_nano


def _event(request_id: str, tenant_id: str, partner_id: str, key_id: str, index: int) -> UsageEvent:
    counts = {"prompt_tokens": 900 + index % 300, "cached_tokens": 0, "completion_tokens": 200 + index % 100}
    now_ms = clock.now_ms()
    return UsageEvent(
        request_id=request_id,
        tenant_id=tenant_id,
        project_id=key_id.replace("key", "prj"),
        api_key_id=key_id,
        partner_id=partner_id,
        pool_id=partner_id.replace("par", "pol"),
        worker_id=partner_id.replace("par", "wrk"),
        release_id=key_id.replace("key", "rel"),
        model="tokenworks-nano",
        endpoint="/v1/chat/completions",
        finish_reason="stop",
        price=PRICE,
        charge=charge_for(price=PRICE, **counts),
        received_at_ms=now_ms - 900,
        first_token_at_ms=now_ms - 800,
        finished_at_ms=now_ms,
        witness="both",
        receipt={
            "entry": {"seq": index, "prev_hash": "0" * 64, "output_sha256": "f" * 64, **counts},
            "worker_signature": "s" * 88,
            "worker_public_key": "k" * 44,
            "gateway": {"gateway_id": key_id, "entry_hash": "e" * 64, "decision_digest": "d" * 64},
            "gateway_signature": "g" * 88,
            "gateway_public_key": "p" * 44,
        },
        decision={"policy_digest": "a" * 64, "seed": "b" * 64, "chosen": partner_id, "reason": "lowest cost"},
        **counts,
    )


@dataclass(frozen=True)
class Drain:
    """One run: events a second, and CPU time an event in meters, PostgreSQL and Valkey together."""

    per_s: float
    meter_cpu_us: float
    postgres_cpu_us: float
    valkey_cpu_us: float


class Bench:
    """The services, and what the ledger must hold."""

    def __init__(self, system_url: str, client: redis.Redis) -> None:
        self._system_url = system_url
        self._client = client
        self._database = psycopg.connect(system_url, autocommit=True)
        self._tenants, self._partners = accounts_open(self._database)
        self._count, self._total_nano = 0, 0

    def run(self, *, count: int, batch: int) -> Drain:
        """Fill the stream with ``count`` events, drain it with one meter, check the ledger."""
        self._total_nano += stream_fill(self._client, count, self._tenants, self._partners)
        self._count += count
        with psycopg.connect(self._system_url, autocommit=True) as connection:
            stream = UsageStream(self._client, consumer="meter-0")
            meter = Meter(stream, Poster(connection), batch=batch, block_ms=1)
            backend = psutil.Process(connection.info.backend_pid)
            before = (time.process_time(), _cpu_s(backend), _valkey_cpu_s(self._client))
            started, done = time.perf_counter(), 0
            while done < count:
                done += meter.step()
            seconds = time.perf_counter() - started
            after = (time.process_time(), _cpu_s(backend), _valkey_cpu_s(self._client))
        self._check()
        cpu_us = [(end - begin) * 1e6 / count for begin, end in zip(before, after, strict=True)]
        return Drain(count / seconds, *cpu_us)

    def _check(self) -> None:
        """The ledger holds every event, to the nano-dollar, and balances."""
        row = self._database.execute("SELECT count(*), sum(charge_nano) FROM metering_usagerecord").fetchone()
        total = self._database.execute("SELECT sum(balance_nano) FROM ledger_account").fetchone()
        if row != (self._count, self._total_nano) or total != (0,):
            raise SystemExit(f"wrong ledger: {row}, sum {total}, due {(self._count, self._total_nano)}")


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _valkey_cpu_s(client: redis.Redis) -> float:
    info = client.info("cpu")
    return float(info["used_cpu_user"]) + float(info["used_cpu_sys"])


def main() -> None:
    """Measure, print the table, write the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=40_000)
    parser.add_argument("--batch", type=int, default=1000)
    options = parser.parse_args()
    with services() as (system_url, redis_url), redis.Redis.from_url(redis_url) as client:
        bench = Bench(system_url, client)
        bench.run(count=2_000, batch=options.batch)
        single = bench.run(count=max(200, options.events // 20), batch=1)
        batched = bench.run(count=options.events, batch=options.batch)
    rows = [
        compare(
            "events into the ledger, one meter",
            batched.per_s,
            "events/s",
            peer="one transaction an event",
            peer_value=single.per_s,
            limit=TARGET_PER_S,
        ),
        compare("meter CPU an event", batched.meter_cpu_us, "µs"),
        compare("PostgreSQL CPU an event", batched.postgres_cpu_us, "µs"),
        compare("Valkey CPU an event", batched.valkey_cpu_us, "µs"),
    ]
    report("metering_throughput", rows, title="Metering: usage stream to ledger (limit: the target)")


if __name__ == "__main__":
    main()
