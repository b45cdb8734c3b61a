"""What the gateway costs: requests and streams per CPU-second, and added latency.

``python -m bench.gateway_overhead [--seconds S] [--repeats N]``. Everything on: key, limits, hold, routing,
receipt checked and countersigned, journal, settlement. The gateway has one core; stub worker, load client and
Valkey share another. The peer is the stub asked directly, in the same run; CPU time is the gateway process's
own, threads included, until the last hold is settled.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import httpx
import msgspec
import orjson
import psutil
import redis

from bench.gateway_stub import MODEL, RELEASE_DIGEST, TOKENS
from bench.report import Row, compare, report
from billing.rating import Price
from core import redis_keys
from core.clock import clock
from core.ids import new_id
from core.secrets import new_secret
from core.signing import signing_key_load
from routing.snapshot import KeyRecord, Model, Policy, Snapshot, WorkerEntry, WorkerLoad
from stack.ports import free_port
from stack.services import EmbeddedValkey

TARGET_REQUESTS, TARGET_STREAMS = 5000, 2000
TARGET_P50_MS, TARGET_P99_MS = 1.0, 3.0
PARTNERS = 3


class Figures(NamedTuple):
    """One load: answers a second, a CPU-second of the gateway, and latencies."""

    per_s: float
    per_cpu_s: float
    p50_ms: float
    p99_ms: float
    first_p50_ms: float


@dataclass
class Bench:
    """The running pieces."""

    redis: redis.Redis
    gateway: psutil.Process
    gateway_port: int
    stub_port: int
    key: str
    other_core: set[int]
    snapshot: Snapshot
    _beaten: bool = False

    def load(self, *, direct: bool, concurrency: int, seconds: float, stream: bool) -> Figures:
        """Run the client once."""
        beating = threading.Event()
        beats = threading.Thread(target=self._beat, args=(beating,))
        beats.start()
        time.sleep(0.7)  # the gateway looks for heartbeats twice a second
        try:
            return self._load(direct=direct, concurrency=concurrency, seconds=seconds, stream=stream)
        finally:
            beating.set()
            beats.join()

    def _load(self, *, direct: bool, concurrency: int, seconds: float, stream: bool) -> Figures:
        port = self.stub_port if direct else self.gateway_port
        before = sum(self.gateway.cpu_times()[:2])
        command = [
            "bench.gateway_load",
            str(port),
            self.key,
            str(concurrency),
            str(seconds),
            str(int(stream)),
        ]
        with _process(command, self.other_core, stdout=subprocess.PIPE) as process:
            output, _ = process.communicate()
        while self.redis.zcard(redis_keys.HOLDS):
            time.sleep(0.005)
        cpu_s = sum(self.gateway.cpu_times()[:2]) - before
        figures = orjson.loads(output)
        if figures["failed"] or not figures["count"]:
            raise RuntimeError(f"the load had failures: {figures}")
        self.redis.delete(redis_keys.USAGE_STREAM)
        return Figures(
            per_s=figures["count"] / figures["seconds"],
            per_cpu_s=figures["count"] / cpu_s if cpu_s else 0.0,
            p50_ms=figures["p50_ms"],
            p99_ms=figures["p99_ms"],
            first_p50_ms=figures["first_p50_ms"],
        )

    def _beat(self, end: threading.Event) -> None:
        while not end.wait(1.0 if self._beaten else 0.0):
            self._beaten = True
            self._heartbeat()

    def _heartbeat(self) -> None:
        for worker in self.snapshot.workers:
            now = clock.now_ms()
            load = WorkerLoad(
                worker_id=worker.worker_id,
                seq=now,
                at_ms=now,
                state="ready",
                running=0,
                queued=0,
                max_running=64,
            )
            self.redis.set(redis_keys.load(worker.worker_id), msgspec.json.encode(load))


@contextmanager
def _process(
    module: list[str], cores: set[int], environ: dict[str, str] | None = None, stdout: int | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-m", *module],
        env={**os.environ, **(environ or {})},
        stdout=stdout,
        stderr=subprocess.DEVNULL,
    )
    try:
        psutil.Process(process.pid).cpu_affinity(sorted(cores))
        yield process
    finally:
        process.kill()
        process.wait()


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
    """Valkey, stub and gateway, each on its core."""
    cores = sorted(psutil.Process().cpu_affinity())
    gateway_core, other = {cores[0]}, set(cores[1:2] or cores)
    stub_port, gateway_port, worker_key = free_port(), free_port(), folder / "worker.pem"
    snapshot = snapshot_make(stub_port, worker_key)
    with EmbeddedValkey(folder / "valkey") as valkey:
        assert valkey.process is not None
        psutil.Process(valkey.process.pid).cpu_affinity(sorted(other))
        client = redis.Redis.from_url(valkey.url)
        key = publish(client, snapshot)
        environ = {
            "REDIS_URL": valkey.url,
            "TOKENWORKS_DISPATCH_SECRET": "bench",
            "TOKENWORKS_STATE_DIR": str(folder),
            "TOKENWORKS_GATEWAY_ID": new_id("gw"),
            "TOKENWORKS_GATEWAY_KEY_FILE": str(folder / "gateway.pem"),
        }
        stub = ["bench.gateway_stub", str(stub_port), snapshot.workers[0].worker_id, str(worker_key)]
        gateway = ["gateway.run", "--port", str(gateway_port)]
        with _process(stub, other), _process(gateway, gateway_core, environ) as process:
            _wait(f"http://127.0.0.1:{gateway_port}/readyz")
            yield Bench(
                redis=client,
                gateway=psutil.Process(process.pid),
                gateway_port=gateway_port,
                stub_port=stub_port,
                key=key,
                other_core=other,
                snapshot=snapshot,
            )
        client.close()


def _wait(url: str) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            if httpx.get(url).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise RuntimeError("the gateway did not get ready")


def median(figures: list[Figures]) -> Figures:
    """Of each figure."""
    return Figures(*(statistics.median(column) for column in zip(*figures, strict=True)))


def measure(bench: Bench, *, seconds: float, repeats: int) -> list[Row]:
    """All rows."""
    rows: list[Row] = []
    bench.load(direct=False, concurrency=16, seconds=1.0, stream=False)  # warm
    for concurrency in (1, 16, 64):
        direct, through = [], []
        for _ in range(repeats):
            direct.append(bench.load(direct=True, concurrency=concurrency, seconds=seconds, stream=False))
            through.append(bench.load(direct=False, concurrency=concurrency, seconds=seconds, stream=False))
        stub, gateway = median(direct), median(through)
        where = f"c={concurrency}"
        added = median(
            [
                Figures(*(b - a for a, b in zip(*pair, strict=True)))
                for pair in zip(direct, through, strict=True)
            ]
        )
        rows += [
            compare(f"requests, {where}", gateway.per_s, "1/s", peer="stub direct", peer_value=stub.per_s),
            compare(f"requests, {where}", gateway.per_cpu_s, "1/CPU-s", limit=TARGET_REQUESTS),
            compare(f"added p50, {where}", added.p50_ms, "ms", limit=TARGET_P50_MS, lower_is_better=True),
            compare(f"added p99, {where}", added.p99_ms, "ms", limit=TARGET_P99_MS, lower_is_better=True),
        ]
    direct = [bench.load(direct=True, concurrency=32, seconds=seconds, stream=True) for _ in range(repeats)]
    through = [bench.load(direct=False, concurrency=32, seconds=seconds, stream=True) for _ in range(repeats)]
    stub, gateway = median(direct), median(through)
    what = f"streams of {TOKENS} chunks, c=32"
    rows += [
        compare(what, gateway.per_s, "1/s", peer="stub direct", peer_value=stub.per_s),
        compare(what, gateway.per_cpu_s, "1/CPU-s", limit=TARGET_STREAMS),
        compare("added to first byte p50, c=32", gateway.first_p50_ms - stub.first_p50_ms, "ms"),
    ]
    rss = bench.gateway.memory_info().rss / 2**20
    rows.append(Row("gateway memory", rss, "MiB"))
    return rows


def main() -> None:
    """Run and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tokenworks-bench-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        with bench_open(folder) as bench:
            rows = measure(bench, seconds=options.seconds, repeats=options.repeats)
    title = "gateway overhead (limit: the project's target; fraction: how much of it is met)"
    report("gateway_overhead", rows, title=title)


if __name__ == "__main__":
    main()
