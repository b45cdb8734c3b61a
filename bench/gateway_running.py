"""The pieces of the gateway bench once they run, and one load on them."""

from __future__ import annotations

import subprocess
import threading
import time
from dataclasses import dataclass
from typing import NamedTuple

import msgspec
import orjson
import redis

from bench.gateway_process import cpu_s, process
from core import redis_keys
from core.clock import clock
from routing.snapshot import Snapshot, WorkerLoad


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
