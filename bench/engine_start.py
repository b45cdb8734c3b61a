"""How long a worker takes from nothing to its first token, with packed weights on disk.

`python -m bench.engine_start [--model DIR|S|M] [--weights int8] [--threads N] [--rounds N]`

The process is `inference.worker`'s up to where it would enrol: imports, key and journal, the engine's process
with its model, the hash over the release's files. The first start, which packs, is reported, too.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from bench.engine_peers import checkpoint_at
from bench.peers.process import ROOT
from bench.report import FOLDER, Row, report
from inference.engine.types import WEIGHTS

TARGET_S = 3.0


@dataclass(frozen=True, slots=True)
class Started:
    """Seconds since the process was started: until all is loaded, and until the first token."""

    loaded_s: float
    token_s: float


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.engine_start")
    parser.add_argument("--model", default="M", help="checkpoint folder, or S or M")
    parser.add_argument("--weights", choices=WEIGHTS, default="int8")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    model = checkpoint_at(options.model)
    state = (FOLDER / f"start-{model.name}-{options.weights}").resolve()
    shutil.rmtree(state, ignore_errors=True)
    command = [str(model), options.weights, str(options.threads), str(state)]
    first = start(command)
    again = [start(command) for _ in range(options.rounds)]
    name = f"{model.name} {options.weights}"
    loaded = statistics.median(one.loaded_s for one in again)
    token = statistics.median(one.token_s for one in again)
    rows = [
        Row(f"{name}: first start, packing, to first token", first.token_s, "s"),
        Row(f"{name}: start from cache, to loaded", loaded, "s"),
        Row(
            f"{name}: start from cache, to first token",
            token,
            "s",
            limit=TARGET_S,
            fraction=TARGET_S / token,
        ),
    ]
    report("engine_start", rows, title=f"start of a worker, {options.threads} thread(s)")


def start(command: Sequence[str]) -> Started:
    """Run one worker up to its first token. Raises `RuntimeError` when it does not get there."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPATH"] = os.pathsep.join((str(ROOT), str(ROOT / "kernels")))
    began = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-m", "bench.engine_start_worker", *command],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        moments = [(line.strip(), time.perf_counter() - began) for line in process.stdout or ()]
    seconds = {line: moment for line, moment in moments if line in ("loaded", "token")}
    if process.returncode != 0 or len(seconds) < 2:
        raise RuntimeError(f"the worker ended with status {process.returncode} before its first token")
    return Started(seconds["loaded"], seconds["token"])


if __name__ == "__main__":
    main()
