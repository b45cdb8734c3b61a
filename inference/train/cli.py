"""`python -m inference.train STAGE`: make tokenworks-nano, stage by stage or all at once."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from inference.train import publish, stages
from inference.train.curves import PlottingMissingError
from inference.train.stages import RunFolder, StageError
from inference.train.team import Team
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
            command.add_argument(
                "--processes", type=int, default=1, help="train in so many processes (on a shared machine)"
            )
            command.add_argument("--rank", type=int, default=0, help=argparse.SUPPRESS)
            command.add_argument("--meeting", type=Path, default=None, help=argparse.SUPPRESS)
            command.add_argument("--seed", type=int, default=1, help="of data order and weights (default: 1)")
        if stage in ("pretrain", "chat"):
            limits = command.add_mutually_exclusive_group()
            limits.add_argument("--steps", type=int, help="end after this many steps: exactly repeatable")
            limits.add_argument("--minutes", type=float, help=f"training time (default: {_MINUTES[stage]:g})")
        if stage == "all":
            command.add_argument(
                "--minutes",
                type=float,
                default=70.0,
                help="training time, one seventh of it chat (default: 70)",
            )
        if stage in ("export", "all"):
            command.add_argument(
                "--out",
                type=Path,
                default=Path("inference/models/nano"),
                help="folder of the exported model (default: %(default)s)",
            )
            command.add_argument(
                "--no-curves", action="store_true", help="draw no curves (needs no matplotlib)"
            )
        if stage in ("evaluate", "all"):
            command.add_argument(
                "--per-kind",
                type=int,
                default=150,
                help="infilling tasks of each kind (default: %(default)s)",
            )
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run one stage; returns the exit status."""
    options = build_parser().parse_args(arguments)
    processes = getattr(options, "processes", 1)
    torch.set_num_threads(options.threads or max(1, (os.cpu_count() or 1) // processes))
    given = sys.argv[1:] if arguments is None else arguments
    try:
        with gathered_team(options, given) as team:
            _run(options, team)
    except (StageError, PlottingMissingError) as error:
        print(f"inference.train: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("inference.train: stopped; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
    return 0


@contextmanager
def gathered_team(options: argparse.Namespace, arguments: list[str]) -> Iterator[Team]:
    """The team this process belongs to; the leader starts the others and ends them with itself."""
    size = getattr(options, "processes", 1)
    if size == 1:
        yield Team()
        return
    if options.rank > 0:
        yield Team.join(rank=options.rank, size=size, meeting_file=options.meeting)
        return
    with tempfile.TemporaryDirectory() as folder:
        meeting = Path(folder) / "meeting"
        command = [sys.executable, "-m", "inference.train", *arguments, "--meeting", str(meeting)]
        others = [subprocess.Popen([*command, "--rank", str(rank)]) for rank in range(1, size)]
        try:
            yield Team.join(rank=0, size=size, meeting_file=meeting)
        finally:
            for other in others:
                other.terminate()
                other.wait()


def _run(options: argparse.Namespace, team: Team) -> None:
    run, stage = RunFolder(options.run), options.stage
    if stage in ("corpus", "all") and team.leads:
        stages.corpus_make(run)
    if stage in ("tokenizer", "all") and team.leads:
        stages.tokenizer_make(run)
    team.agree(0)  # the others wait for both
    if stage in ("pretrain", "all"):
        stages.pretrain(run, limit=_limit(options, "pretrain"), seed=options.seed, team=team)
    if stage in ("chat", "all"):
        stages.chat(run, limit=_limit(options, "chat"), seed=options.seed, team=team)
    if not team.leads:
        return
    if stage in ("evaluate", "all"):
        publish.model_evaluate(run, per_kind=options.per_kind)
    if stage in ("export", "all"):
        publish.model_publish(run, folder=options.out, curves=not options.no_curves)


def _limit(options: argparse.Namespace, stage: str) -> Limit:
    if options.stage == "all":
        share = 6 / 7 if stage == "pretrain" else 1 / 7
        return Limit(minutes=options.minutes * share)
    if options.steps is not None:
        return Limit(steps=options.steps)
    return Limit(minutes=_MINUTES[stage] if options.minutes is None else options.minutes)
