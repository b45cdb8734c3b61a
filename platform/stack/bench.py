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
    "bench.kernels",
    "bench.scheduler_share",
    "bench.adapters",
    "bench.prefix_cache",
    "bench.fixed_routing",
    "bench.gateway_overhead",
    "bench.metering_throughput",
)
TRACES = {
    "bench.prefix_cache": "mooncake_conversation_trace.jsonl.gz",
    "bench.fixed_routing": "azure_llm_trace_conv.csv.gz",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benches named, or all; exit status 1 when one failed."""
    wanted = [
        f"bench.{name.removeprefix('bench.')}" for name in (sys.argv[1:] if arguments is None else arguments)
    ]
    failed = []
    for name in wanted or BENCHES:
        print(f"── {name}", flush=True)
        more = trace_arguments(name)
        if more is None:
            print(f"   left out: {TRACES[name]} is not in {data_folder()}\n", flush=True)
            continue
        began = time.monotonic()
        status = subprocess.run([sys.executable, "-m", name, *more], cwd=ROOT, check=False).returncode
        print(
            f"   {name}: {'ok' if status == 0 else 'FAILED'} in {time.monotonic() - began:.0f} s\n",
            flush=True,
        )
        if status != 0:
            failed.append(name)
    return 1 if failed else 0


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
