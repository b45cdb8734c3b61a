"""`python -m inference.routing_profile`: make a profile from text, show it, measure what it costs."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from inference.engine.types import WEIGHTS
from inference.models.decoder import Decoder
from inference.routing.profile import MODES, profile_load
from inference.routing_profile.making import observe, profile_make, window_shares
from inference.routing_profile.plots import quality_plot
from inference.routing_profile.quality import quality_measure
from inference.routing_profile.tables import kept_table, profile_table, quality_table
from inference.routing_profile.tasks import line_tasks, tasks_score
from inference.routing_profile.windows import Window, routed_model, texts_read, windows_cut
from inference.tokenizer import Tokenizer

_WIDTH = 120


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 1, and one line on stderr, for files that can not be used."""
    options = _options(arguments)
    torch.set_num_threads(options.threads)
    console = Console() if sys.stdout.isatty() else Console(width=_WIDTH)
    command: Callable[[argparse.Namespace, Console], None] = options.run
    try:
        command(options, console)
    except (ValueError, OSError) as error:
        print(f"routing_profile: {error}", file=sys.stderr)
        return 1
    return 0


def _make(options: argparse.Namespace, console: Console) -> None:
    model, _, windows = _material(options)
    with _progress(console, windows) as told:
        observed = observe(model, windows, by_token=options.mode == "hash", told=told)
    profile = profile_make(
        observed,
        mode=options.mode,
        size=options.size,
        coverage_min=options.coverage_min,
        domain=options.domain or options.text[0].stem,
    )
    profile.save(options.out)
    console.print(profile_table(profile))
    if profile.mode == "session":
        _, answers_W = window_shares(observed, profile)
        console.print(
            f"answers are covered by the sets of their prompts: {float(answers_W.min()):.1%} at least"
        )
    else:
        console.print(kept_table(profile, observed))
    console.print(f"{options.out}: {options.out.stat().st_size:,} bytes")


def _show(options: argparse.Namespace, console: Console) -> None:
    profile = profile_load(options.profile)
    console.print(profile_table(profile))
    if profile.mode == "pool":
        console.print(kept_table(profile))


def _quality(options: argparse.Namespace, console: Console) -> None:
    profile = profile_load(options.profile)
    model, tokenizer, windows = _material(options)
    with _progress(console, windows) as told:
        quality = quality_measure(model, profile, windows, told)
    scores = None
    if options.tasks:
        tasks = line_tasks(texts_read(options.text), tokenizer, count=options.tasks)
        scores = tasks_score(model, tokenizer, profile, tasks)
    console.print(quality_table(quality, scores))
    out = options.out or options.profile.with_suffix(".quality.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    found = {
        "profile": profile.id,
        "quality": asdict(quality),
        "next_lines": None if scores is None else asdict(scores),
    }
    out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    picture = out.with_suffix(".png")
    title = f"{profile.id}: {profile.mode}, {profile.size} of {profile.experts} experts, {profile.domain}"
    drawn = quality_plot(quality, title, picture)
    console.print(
        f"{out}\n{picture}"
        if drawn
        else f"{out}\nno plot: matplotlib is not installed (pip install -e .[dev])"
    )


def _material(options: argparse.Namespace) -> tuple[Decoder, Tokenizer, list[Window]]:
    """Model, tokenizer and the text in windows."""
    tokenizer = Tokenizer.from_dir(options.model)
    windows = windows_cut(texts_read(options.text), tokenizer, length=options.window)
    if options.tokens is not None:
        step = max(len(windows) * options.window // options.tokens, 1)  # some of everything
        windows = windows[::step]
    return routed_model(options.model, options.weights), tokenizer, windows


@contextmanager
def _progress(console: Console, windows: Sequence[Window]) -> Iterator[Callable[[int, int], None]]:
    """A bar with the time that is left."""
    tokens = TextColumn("windows, {task.fields[tokens]:,} tokens,")
    gone, left = TextColumn("gone,"), TextColumn("left")
    columns = (
        TextColumn("reading"), BarColumn(), MofNCompleteColumn(), tokens,
        TimeElapsedColumn(), gone, TimeRemainingColumn(), left,
    )  # fmt: skip
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("reading", total=len(windows), tokens=0)
        yield lambda number, tokens: bar.update(task, completed=number, tokens=tokens)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m inference.routing_profile", description=__doc__)
    commands = parser.add_subparsers(required=True)
    make = commands.add_parser("make", help="read text, keep the experts that carry it")
    _reading(make)
    make.add_argument(
        "--mode",
        choices=MODES,
        required=True,
        help="pool: one set; session: each prompt's own; hash: by token id",
    )
    make.add_argument(
        "--size", type=int, help="experts kept per layer (pool: half; session: twice those of a token)"
    )
    make.add_argument(
        "--coverage-min",
        type=float,
        help="share of a prompt's gate mass below which its answer is dynamic "
        "(default: the worst twentieth of the text would be)",
    )
    make.add_argument("--domain", help="what the text is about (default: the first file's name)")
    make.add_argument("--out", type=Path, required=True, help="file to write")
    make.set_defaults(run=_make)
    show = commands.add_parser("show", help="print what a profile says")
    show.add_argument("profile", type=Path)
    show.set_defaults(run=_show, threads=1)
    quality = commands.add_parser(
        "quality", help="answers to held-out text under a profile beside dynamic ones"
    )
    _reading(quality)
    quality.add_argument("--profile", type=Path, required=True)
    quality.add_argument("--tasks", type=int, default=100, help="lines to answer by the engine; 0: none")
    quality.add_argument(
        "--out", type=Path, help="JSON file; the plot goes beside it (default: beside the profile)"
    )
    quality.set_defaults(run=_quality)
    return parser.parse_args(arguments)


def _reading(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", type=Path, required=True, help="checkpoint folder")
    parser.add_argument("--text", type=Path, nargs="+", required=True, help="text files")
    parser.add_argument(
        "--window", type=int, default=512, help="tokens read together, half of them as a prompt"
    )
    parser.add_argument("--tokens", type=int, help="about how many to read at most, spread over the text")
    parser.add_argument("--weights", choices=WEIGHTS, default="float32")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
