"""What the gateway costs: requests and streams per CPU-second, and added latency.

``python -m bench.gateway_overhead [--seconds S] [--repeats N]``. Everything on: key, limits, hold, routing,
receipt checked and countersigned, journal, settlement. The gateway has one core; stub worker, load client
and Valkey share another. Peers of the same run: the stub asked directly, and uvicorn answering with nothing
behind it, the least a Python server costs. CPU time is the gateway process's own, threads included, until
the last hold is settled. Linux only.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

from bench.gateway_process import rss_mib
from bench.gateway_running import Bench, Figures
from bench.gateway_setup import bench_open
from bench.gateway_stub import TOKENS
from bench.report import Row, compare, report

TARGET_REQUESTS, TARGET_STREAMS = 5000, 2000
TARGET_P50_MS, TARGET_P99_MS = 1.0, 3.0


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
