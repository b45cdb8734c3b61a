"""`python -m inference.train STAGE`: make tokenworks-nano, stage by stage or all at once."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import torch

from inference.train import stages
from inference.train.stages import RunFolder, StageError
from inference.train.trainer import Limit

_STAGES = {
    "corpus": "collect the interpreter's standard library and split off held-out files",
    "tokenizer": "train the byte-level BPE tokenizer",
    "pretrain": "train on code and documentation with fill-in-the-middle (resumes by itself)",
    "chat": "train on question/answer pairs (resumes by itself)",
    "evaluate": "measure bits per byte, infilling, draft acceptance and expert load",
    "export": "write the Hugging Face folder with its model card and curves",
    "all": "every stage in this order",
}
_MINUTES = {"pretrain": 60.0, "chat": 10.0}


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m inference.train", description=__doc__)
    commands = parser.add_subparsers(dest="stage", required=True, metavar="STAGE")
    for stage, text in _STAGES.items():
        command = commands.add_parser(stage, help=text, description=text)
        command.add_argument(
            "--run", type=Path, default=Path("var/train/nano"), help="run folder (default: %(default)s)"
        )
        command.add_argument("--threads", type=int, default=None, help="torch threads (default: all cores)")
        if stage in ("pretrain", "chat", "all"):
            command.add_argument("--seed", type=int, default=1, help="of data order and weights (default: 1)")
        if stage in ("pretrain", "chat"):
            limits = command.add_mutually_exclusive_group()
            limits.add_argument("--steps", type=int, help="end after this many steps: exactly repeatable")
            limits.add_argument("--minutes", type=float, help=f"training time (default: {_MINUTES[stage]:g})")
        if stage == "all":
            command.add_argument(
                "--minutes", type=float, default=70.0, help="training time, one seventh of it chat (default: 70)"
            )
        if stage in ("export", "all"):
            command.add_argument(
                "--out",
                type=Path,
                default=Path("inference/models/nano"),
                help="folder of the exported model (default: %(default)s)",
            )
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run one stage; returns the exit status."""
    options = build_parser().parse_args(arguments)
    torch.set_num_threads(options.threads or os.cpu_count() or 1)
    try:
        _run(options)
    except StageError as error:
        print(f"inference.train: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("inference.train: stopped; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
    return 0


def _run(options: argparse.Namespace) -> None:
    run, stage = RunFolder(options.run), options.stage
    if stage in ("corpus", "all"):
        stages.corpus_make(run)
    if stage in ("tokenizer", "all"):
        stages.tokenizer_make(run)
    if stage in ("pretrain", "all"):
        stages.pretrain(run, limit=_limit(options, "pretrain"), seed=options.seed)
    if stage in ("chat", "all"):
        stages.chat(run, limit=_limit(options, "chat"), seed=options.seed)


def _limit(options: argparse.Namespace, stage: str) -> Limit:
    if options.stage == "all":
        share = 6 / 7 if stage == "pretrain" else 1 / 7
        return Limit(minutes=options.minutes * share)
    if options.steps is not None:
        return Limit(steps=options.steps)
    return Limit(minutes=_MINUTES[stage] if options.minutes is None else options.minutes)
