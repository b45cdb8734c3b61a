"""A process of rank 1 or up: ``python -m inference.parallel.process RANK PART``, PART the JSON of a `Part`.

It is there for the process that started it, and dies with it.
"""

from __future__ import annotations

import logging
import os
import sys

import msgspec
import torch

from inference.logs import json_logs
from inference.parallel.group import Part
from inference.parallel.runner import follow
from inference.parent_death import parent_follow

_log = logging.getLogger(__name__)


def main() -> int:
    """Follow the leader until it stops; returns the exit status."""
    parent_follow()
    rank, part = int(sys.argv[1]), msgspec.json.decode(sys.argv[2], type=Part)
    json_logs({"process": "engine", "rank": str(rank)})
    torch.set_num_threads(part.config.threads_a_rank)
    try:
        model, ranks = part.load(rank)
        follow(model, ranks)
        ranks.leave()
    except Exception:
        _log.exception("rank %d fails", rank)
        return os.EX_SOFTWARE
    return os.EX_OK


if __name__ == "__main__":
    sys.exit(main())
