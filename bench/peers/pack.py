"""The first start of a worker, in a process of its own: `python -m bench.peers.pack MODEL WEIGHTS FOLDER`.

Fills FOLDER with packed weights, and says in one JSON line how long that took and how much memory.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from bench.peers.process import ROOT, SideError
from inference.models.loader import load_model
from moe_ops.linear import WeightFormat


@dataclass(frozen=True, slots=True)
class Packed:
    """A folder of packed weights, and what filling it took: seconds after imports, and peak memory."""

    folder: Path
    seconds: float
    peak_bytes: int


def packed_anew(model: Path, weights: str, folder: Path, *, log: Path) -> Packed:
    """Pack `model` into `folder`, which is emptied before. Raises `SideError`."""
    shutil.rmtree(folder, ignore_errors=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    paths = os.pathsep.join((str(ROOT), str(ROOT / "kernels")))
    with log.open("wb") as errors:
        done = subprocess.run(
            [sys.executable, "-m", "bench.peers.pack", str(model), weights, str(folder)],
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, "PYTHONPATH": paths},
            check=False,
        )
    if done.returncode != 0:
        raise SideError(f"its weights could not be packed; see {log}")
    answer = json.loads(done.stdout)
    return Packed(folder, answer["seconds"], answer["peak_bytes"])


def main() -> None:
    path, name, folder = sys.argv[1:4]
    weights: WeightFormat = next(one for one in get_args(WeightFormat) if one == name)
    start = time.perf_counter()
    load_model(Path(path), weights=weights, cache_dir=Path(folder))
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds, "peak_bytes": peak}))


if __name__ == "__main__":
    main()
