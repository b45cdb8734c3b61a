"""``make bench``: run every bench, one after the other so that none disturbs another.

Traces are read from the folder ``TOKENWORKS_DATA`` (``../shared/data`` without it); a bench whose trace is
not there is left out, which is said.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from stack.layout import ROOT

BENCHES = (
    "bench.engine_decode",
    "bench.engine_peers",
    "bench.speculation",
    "bench.engine_start",
    "bench.kernels",
    "bench.scheduler_share",
    "bench.worker_front",
    "bench.adapters",
    "bench.prefix_cache",
    "bench.fixed_routing",
    "bench.gateway_overhead",
    "bench.metering_throughput",
)
FAILED = "FAILED"
LIMIT_S = 3600  # none takes half of that
TRACES = {
    "bench.prefix_cache": "mooncake_conversation_trace.jsonl.gz",
    "bench.fixed_routing": "azure_llm_trace_conv.csv.gz",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benches named, or all; exit status 1 when one failed."""
    wanted = [
        f"bench.{name.removeprefix('bench.')}" for name in (sys.argv[1:] if arguments is None else arguments)
    ]
    began, outcomes = time.monotonic(), {}
    for number, name in enumerate(names := wanted or BENCHES, start=1):
        print(f"── {name} ({number} of {len(names)})", flush=True)
        outcomes[name] = run(name)
        print(f"   {name}: {outcomes[name]}\n", flush=True)
    print(f"── {len(outcomes)} benches in {time.monotonic() - began:.0f} s")
    for name, outcome in outcomes.items():
        print(f"   {name}: {outcome}")
    return 1 if any(outcome.startswith(FAILED) for outcome in outcomes.values()) else 0


def run(name: str) -> str:
    """Run one bench in a process of its own, and say what came of it."""
    more = trace_arguments(name)
    if more is None:
        return f"left out: {TRACES[name]} is not in {data_folder()}"
    began = time.monotonic()
    try:
        status = subprocess.run(
            [sys.executable, "-m", name, *more], cwd=ROOT, check=False, timeout=LIMIT_S
        ).returncode
    except subprocess.TimeoutExpired:
        return f"{FAILED}, ended after {LIMIT_S} s"
    seconds = time.monotonic() - began
    return f"{'ok' if status == 0 else f'{FAILED} with status {status}'} in {seconds:.0f} s"


def data_folder() -> Path:
    """Where the traces are."""
    return Path(os.environ.get("TOKENWORKS_DATA") or ROOT.parent / "shared" / "data")


def trace_arguments(name: str) -> list[str] | None:
    """What a bench needs to be told about its trace; None when that is not there."""
    trace = TRACES.get(name)
    if trace is None:
        return []
    path = data_folder() / trace
    return ["--trace", str(path)] if path.exists() else None


if __name__ == "__main__":
    sys.exit(main())
