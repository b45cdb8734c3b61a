"""What the gateway bench runs on: one tenant, three partners, Valkey, stub, gateway and a bare server."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import msgspec
import redis

from bench.gateway_process import process
from bench.gateway_running import Bench
from bench.gateway_stub import MODEL, RELEASE_DIGEST
from billing.rating import Price
from core import redis_keys
from core.clock import clock
from core.ids import new_id
from core.secrets import new_secret
from core.signing import signing_key_load
from routing.snapshot import KeyRecord, Model, Policy, Snapshot, WorkerEntry
from stack.ports import free_port
from stack.services import EmbeddedValkey

PARTNERS = 3


def snapshot_make(stub_port: int, key_file: Path) -> Snapshot:
    """Three partners; all of them are the stub, so routing has a choice and the stub one key."""
    public = signing_key_load(key_file).public_text
    workers = tuple(
        WorkerEntry(
            worker_id=new_id("wrk"), pool_id=new_id("pol"), partner_id=new_id("par"),
            partner_slug=f"partner{index}", region="r", model=MODEL, release_digest=RELEASE_DIGEST,
            endpoint=f"http://127.0.0.1:{stub_port}", public_key=public, max_running=64, state="active",
            price=Price(
                offer_id=new_id("off"), input_nano_per_mtok=100_000_000 + 20_000_000 * index,
                cached_input_nano_per_mtok=100_000_000, output_nano_per_mtok=100_000_000 + 20_000_000 * index,
                levy_ppm=50_000,
            ),
        )
        for index in range(PARTNERS)
    )  # fmt: skip
    return Snapshot(
        version=1,
        published_at_ms=clock.now_ms(),
        charter_digest="c" * 64,
        policy=Policy(name="bench", price_weight=1, load_weight=1, half_cost_ppm=100_000),
        models=(
            Model(
                name=MODEL, release_id=new_id("rel"), release_digest=RELEASE_DIGEST, max_model_len=4096,
                created=1, vocab_size=8192,
            ),
        ),
        workers=workers,
    )  # fmt: skip


def publish(client: redis.Redis, snapshot: Snapshot) -> str:
    """Snapshot, one rich tenant, one key without practical limits; the key in plain."""
    key, tenant_id = new_secret("sk"), new_id("ten")
    record = KeyRecord(
        key_id=new_id("key"),
        tenant_id=tenant_id,
        project_id=new_id("prj"),
        requests_per_minute=10**9,
        tokens_per_minute=10**12,
        max_concurrency=10**6,
    )
    client.set(redis_keys.SNAPSHOT, msgspec.json.encode(snapshot))
    client.hset(redis_keys.account(tenant_id), mapping={"credit": 10**15, "version": 1})
    client.set(redis_keys.key_record(key.digest), msgspec.json.encode(record))
    client.set(redis_keys.EPOCH, "bench")
    return key.plain


@contextmanager
def bench_open(folder: Path) -> Iterator[Bench]:
    """Valkey, stub, gateway and the bare server, each on its core."""
    cores = sorted(os.sched_getaffinity(0))
    first, other = {cores[0]}, set(cores[1:2] or cores)
    stub_port, gateway_port, bare_port = free_port(), free_port(), free_port()
    worker_key = folder / "worker.pem"
    snapshot = snapshot_make(stub_port, worker_key)
    environ = {
        "TOKENWORKS_DISPATCH_SECRET": "bench",
        "TOKENWORKS_STATE_DIR": str(folder),
        "TOKENWORKS_GATEWAY_ID": new_id("gw"),
        "TOKENWORKS_GATEWAY_KEY_FILE": str(folder / "gateway.pem"),
    }
    stub = ["bench.gateway_stub", str(stub_port), snapshot.workers[0].worker_id, str(worker_key)]
    bare = ["uvicorn", "bench.gateway_bare:app", "--port", str(bare_port), "--no-access-log"]
    with ExitStack() as stack:
        valkey = stack.enter_context(EmbeddedValkey(folder / "valkey"))
        if valkey.pid is not None:
            os.sched_setaffinity(valkey.pid, other)
        client = stack.enter_context(redis.Redis.from_url(valkey.url))
        key = publish(client, snapshot)
        stack.enter_context(process(stub, other))
        bare_process = stack.enter_context(process(bare, first))
        gateway = ["gateway.run", "--port", str(gateway_port)]
        gateway_process = stack.enter_context(process(gateway, first, {**environ, "REDIS_URL": valkey.url}))
        _wait(f"http://127.0.0.1:{gateway_port}/readyz")
        _wait(f"http://127.0.0.1:{bare_port}/")
        yield Bench(
            redis=client,
            gateway_pid=gateway_process.pid,
            gateway_port=gateway_port,
            stub_port=stub_port,
            bare_pid=bare_process.pid,
            bare_port=bare_port,
            key=key,
            other_core=other,
            snapshot=snapshot,
        )


def _wait(url: str) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with suppress(httpx.TransportError):
            if httpx.get(url).status_code == 200:
                return
        time.sleep(0.05)
    raise RuntimeError(f"{url} did not get ready")
