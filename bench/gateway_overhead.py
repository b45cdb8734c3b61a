"""What the gateway costs: requests and streams per CPU-second, and added latency.

``python -m bench.gateway_overhead [--seconds S] [--repeats N]``. Everything on: key, limits, hold, routing,
receipt checked and countersigned, journal, settlement. The gateway has one core; stub worker, load client
and Valkey share another. Peers of the same run: the stub asked directly, and uvicorn answering with nothing
behind it, the least a Python server costs. CPU time is the gateway process's own, threads included, until
the last hold is settled. Linux only.
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
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import httpx
import msgspec
import orjson
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
    """The running pieces: process ids, ports, and where things are pinned."""

    redis: redis.Redis
    gateway_pid: int
    gateway_port: int
    stub_port: int
    bare_pid: int
    bare_port: int
    key: str
    other_core: set[int]
    snapshot: Snapshot
    _beaten: bool = False

    def load(self, peer: str, *, concurrency: int, seconds: float, stream: bool = False) -> Figures:
        """Run the client once against ``gateway``, ``stub`` or ``bare``."""
        beating = threading.Event()
        beats = threading.Thread(target=self._beat, args=(beating,))
        beats.start()
        time.sleep(0.7)  # the gateway looks for heartbeats twice a second
        try:
            return self._load(peer, concurrency=concurrency, seconds=seconds, stream=stream)
        finally:
            beating.set()
            beats.join()

    def _load(self, peer: str, *, concurrency: int, seconds: float, stream: bool) -> Figures:
        port = {"gateway": self.gateway_port, "stub": self.stub_port, "bare": self.bare_port}[peer]
        pid = self.bare_pid if peer == "bare" else self.gateway_pid
        before = cpu_s(pid)
        command = [
            "bench.gateway_load",
            str(port),
            self.key,
            str(concurrency),
            str(seconds),
            str(int(stream)),
        ]
        with process(command, self.other_core, stdout=subprocess.PIPE) as client:
            output, _ = client.communicate()
        while self.redis.zcard(redis_keys.HOLDS):
            time.sleep(0.005)
        used_s = cpu_s(pid) - before
        figures = orjson.loads(output)
        if figures["failed"] or not figures["count"]:
            raise RuntimeError(f"the load had failures: {figures}")
        self.redis.delete(redis_keys.USAGE_STREAM)
        return Figures(
            per_s=figures["count"] / figures["seconds"],
            per_cpu_s=figures["count"] / used_s if used_s else 0.0,
            p50_ms=figures["p50_ms"],
            p99_ms=figures["p99_ms"],
            first_p50_ms=figures["first_p50_ms"],
        )

    def _beat(self, end: threading.Event) -> None:
        while not end.wait(1.0 if self._beaten else 0.0):
            self._beaten = True
            for worker in self.snapshot.workers:
                now = clock.now_ms()
                load = WorkerLoad(
                    worker_id=worker.worker_id, seq=now, at_ms=now, state="ready", running=0, queued=0,
                    max_running=64,
                )  # fmt: skip
                self.redis.set(redis_keys.load(worker.worker_id), msgspec.json.encode(load))


def cpu_s(pid: int) -> float:
    """CPU seconds a process has used, threads included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_mib(pid: int) -> float:
    """Resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@contextmanager
def process(
    module: list[str], cores: set[int], environ: dict[str, str] | None = None, stdout: int | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A Python module as a process of its own, pinned to ``cores``, gone afterwards."""
    running = subprocess.Popen(
        [sys.executable, "-m", *module],
        env={**os.environ, **(environ or {})},
        stdout=stdout,
        stderr=subprocess.DEVNULL,
    )
    try:
        os.sched_setaffinity(running.pid, cores)
        yield running
    finally:
        running.kill()
        running.wait()


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


def median(figures: list[Figures]) -> Figures:
    """Of each figure."""
    return Figures(*(statistics.median(column) for column in zip(*figures, strict=True)))


def rounds(
    bench: Bench,
    peers: tuple[str, ...],
    *,
    repeats: int,
    concurrency: int,
    seconds: float,
    stream: bool = False,
) -> dict[str, Figures]:
    """Medians by peer; the peers take turns, so that a busy moment of the machine hits all of them."""
    found: dict[str, list[Figures]] = {peer: [] for peer in peers}
    for _ in range(repeats):
        for peer in peers:
            found[peer].append(bench.load(peer, concurrency=concurrency, seconds=seconds, stream=stream))
    return {peer: median(figures) for peer, figures in found.items()}


def measure(bench: Bench, *, seconds: float, repeats: int) -> list[Row]:
    """All rows."""
    rows: list[Row] = []
    bench.load("gateway", concurrency=16, seconds=1.0)  # warm
    for concurrency in (1, 16, 64):
        found = rounds(
            bench, ("bare", "stub", "gateway"), repeats=repeats, concurrency=concurrency, seconds=seconds
        )
        gateway, stub, bare = found["gateway"], found["stub"], found["bare"]
        where = f"c={concurrency}"
        rows += [
            compare(f"requests, {where}", gateway.per_s, "1/s", peer="stub direct", peer_value=stub.per_s),
            compare(
                f"requests, {where}", gateway.per_cpu_s, "1/CPU-s", peer="bare uvicorn",
                peer_value=bare.per_cpu_s, limit=TARGET_REQUESTS,
            ),
            compare(
                f"added p50, {where}", gateway.p50_ms - stub.p50_ms, "ms", limit=TARGET_P50_MS,
                lower_is_better=True,
            ),
            compare(
                f"added p99, {where}", gateway.p99_ms - stub.p99_ms, "ms", limit=TARGET_P99_MS,
                lower_is_better=True,
            ),
        ]  # fmt: skip
    found = rounds(bench, ("stub", "gateway"), repeats=repeats, concurrency=32, seconds=seconds, stream=True)
    gateway, stub = found["gateway"], found["stub"]
    what = f"streams of {TOKENS} chunks, c=32"
    first_ms = gateway.first_p50_ms - stub.first_p50_ms
    return [
        *rows,
        compare(what, gateway.per_s, "1/s", peer="stub direct", peer_value=stub.per_s),
        compare(what, gateway.per_cpu_s, "1/CPU-s", limit=TARGET_STREAMS),
        compare("added to first byte p50, c=32", first_ms, "ms"),
        Row("gateway memory", rss_mib(bench.gateway_pid), "MiB"),
    ]


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
