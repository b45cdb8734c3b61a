"""Groups of processes that serve models, for `test_parallel.py`: `python -m tests.inference.parallel.member
FOLDER`.

FOLDER holds a checkpoint for each name in `MODELS`; what rank 0 finds in a case is saved there under the
case's name. The processes are forks of this one, so that torch is imported once.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Sequence
from itertools import groupby
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from operator import attrgetter
from pathlib import Path

import torch
from safetensors.torch import save_file

from inference.engine.changes import Changes
from inference.parallel.loading import load_part
from inference.parallel.ranks import Ranks
from inference.parallel.runner import LeadingModel, ParallelRunner, follow
from tests.inference.parallel.cases import CASES, CONFIG, TEXTS, Case, computed, served


def main(folder: Path) -> int:
    """Let one group after the other work on its cases; returns 1 once a process fails."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    fork = multiprocessing.get_context("fork")
    for size, cases in groupby(sorted(CASES, key=attrgetter("size")), attrgetter("size")):
        work = list(cases)
        ranks = [fork.Process(target=take_part, args=(rank, size, folder, work)) for rank in range(size)]
        for rank in ranks:
            rank.start()
        if not all_end_well(ranks):
            return 1
    return 0


def all_end_well(ranks: Sequence[BaseProcess]) -> bool:
    """Wait for all, or for the first that fails; then the others are killed."""
    left = list(ranks)
    while left:
        wait([rank.sentinel for rank in left])
        for rank in [one for one in left if not one.is_alive()]:
            left.remove(rank)
            if rank.exitcode:
                for other in left:
                    other.kill()
                return False
    return True


def take_part(rank: int, size: int, folder: Path, cases: list[Case]) -> None:
    ranks = Ranks.join(rank=rank, size=size, meeting_file=folder / f"meeting {size}")
    for case in cases:
        serve(case, ranks, folder)
    ranks.leave()


def serve(case: Case, ranks: Ranks, folder: Path) -> None:
    checkpoint = folder / case.model
    model = load_part(checkpoint, ranks, experts=case.layout, mtp=True, weights=case.weights)
    if not ranks.leads:
        follow(model, ranks)
        return
    runner = ParallelRunner(model, CONFIG, ranks, changes=Changes(counted=len(model.routers)))
    found = served(runner, checkpoint) | computed(LeadingModel(model, ranks), TEXTS)
    save_file({name: tensor.contiguous() for name, tensor in found.items()}, folder / case.name)
    runner.close()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
