"""``make bench``: run every bench, one after the other so that none disturbs another."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence

from stack.layout import ROOT

BENCHES = ("bench.engine_decode", "bench.gateway_overhead", "bench.metering_throughput")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benches named, or all; exit status 1 when one failed."""
    wanted = [
        f"bench.{name.removeprefix('bench.')}" for name in (sys.argv[1:] if arguments is None else arguments)
    ]
    failed = []
    for name in wanted or BENCHES:
        print(f"── {name}", flush=True)
        began = time.monotonic()
        status = subprocess.run([sys.executable, "-m", name], cwd=ROOT, check=False).returncode
        print(
            f"   {name}: {'ok' if status == 0 else 'FAILED'} in {time.monotonic() - began:.0f} s\n",
            flush=True,
        )
        if status != 0:
            failed.append(name)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
