"""How much of a step at batch 32 is not the model: scheduling, events, and the choice of tokens.

`python -m bench.scheduler_share [--model DIR] [--weights int8] [--threads N] [--rounds N]`
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path

from bench.engine_peers import checkpoint_at
from bench.engine_sides import PACKED
from bench.peers.ours import load
from bench.peers.work import Work
from bench.report import Row, report
from inference.engine.types import WEIGHTS, EngineStats

_TARGET = 0.05


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.scheduler_share")
    parser.add_argument("--model", default="M", help="checkpoint folder, or S or M")
    parser.add_argument("--weights", choices=WEIGHTS, default="int8")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--new", type=int, default=32)
    options = parser.parse_args(arguments)
    path: Path = checkpoint_at(options.model)
    packed = PACKED / f"{path.name}-{options.weights}"
    side, _ = load(path, options.weights, options.threads, packed)
    work = Work("decode", 32, 128, options.new)
    shares = []
    for _ in range(options.rounds):
        side.rate(work)
        if side.stats is not None:
            shares.append(share(*side.stats))
    row = Row(
        f"{path.name} {options.weights}: scheduler and sampler, batch 32",
        statistics.median(shares),
        "share of a step",
        limit=_TARGET,
        fraction=statistics.median(shares) / _TARGET,
    )
    report("scheduler_share", [row])


def share(before: EngineStats, after: EngineStats) -> float:
    """Time of scheduling and sampling between two snapshots, over that and the forward passes'."""
    ours = after.schedule_s - before.schedule_s + after.sample_s - before.sample_s
    return ours / (ours + after.forward_s - before.forward_s)


if __name__ == "__main__":
    main()
