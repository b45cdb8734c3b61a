"""Our engine beside llama.cpp, vLLM and transformers: decoding at three batch sizes, and a long prompt.

`python -m bench.engine_peers [--model S|M|DIR …] [--peers build/peers] [--threads N] [--rounds N]`

Every side runs in a process of its own. Peers come in groups that memory can hold: llama.cpp, vLLM, and the
fastest forms of transformers, one each; our engine is there all the time. In each round each work is done by
ours and one group in turn, medians count, and ratios are of medians in the same group. Our weights are packed
beforehand by a process that ends then, as by a worker's first start.

The limit is what this machine could do at best, measured in the same run: see `engine_limits`. A peer that is
not there (`python -m bench.peers setup`) is left out, and one that would take longer than `--limit` seconds
for a work does less of it; both are said. Beside `engine_peers.json`, the folder `build/bench` gets every
sample of each checkpoint.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import torch

from bench.engine_groups import groups_measure
from bench.engine_sides import our_sides
from bench.engine_table import Measured, model_rows, print_notes
from bench.peers.work import Work
from bench.report import Row, report
from inference.models.random_checkpoint import random_checkpoint_write
from inference.models.sizes import SIZES

BATCHES = (1, 8, 32)
LONG_PROMPT = 1024
CHECKPOINTS = Path("build/bench/checkpoints")


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    torch.set_num_threads(options.threads)
    rows: list[Row] = []
    for name in options.model or ("S", "M"):
        rows.extend(_bench(checkpoint_at(name), options))
    title = f"engine, {options.threads} thread(s), prompt {options.prompt} + {options.new} new"
    report("engine_peers", rows, title=title)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.engine_peers")
    parser.add_argument("--model", action="append", help="checkpoint folder, or S or M (default: both)")
    parser.add_argument("--peers", type=Path, default=Path("build/peers"), help="where the peers are")
    parser.add_argument("--threads", type=int, default=2, help="threads of every side")
    parser.add_argument("--rounds", type=int, default=3, help="repetitions of which the median counts")
    parser.add_argument("--prompt", type=int, default=128, help="tokens before the clock starts")
    parser.add_argument(
        "--new", type=int, default=128, help="tokens per sequence, half of it at batch 8, a quarter at 32"
    )
    parser.add_argument("--batch", type=int, action="append", help="batch sizes (default: 1, 8 and 32)")
    parser.add_argument("--long", type=int, default=LONG_PROMPT, help="tokens of the long prompt")
    parser.add_argument("--weights", action="append", help="our formats (default: int8 and bfloat16)")
    parser.add_argument("--vllm", action="append", help="dtype/mode of vLLM, or 'none'")
    parser.add_argument("--hf", action="append", help="dtype/experts of transformers, or 'none'")
    parser.add_argument(
        "--limit", type=float, default=30.0, help="seconds of a work that vLLM or transformers may take"
    )
    return parser.parse_args(arguments)


def works_of(options: argparse.Namespace) -> list[Work]:
    """The works, in the order of the table. Large batches get fewer new tokens around the same context."""
    works = []
    for batch in options.batch or BATCHES:
        new = max(options.new // (1 if batch < 8 else 2 if batch < 32 else 4), 1)
        works.append(Work("decode", batch, options.prompt + (options.new - new) // 2, new))
    return [*works, Work("prefill", 1, options.long, 1)]


def checkpoint_at(name: str) -> Path:
    """The folder, or random weights of a size that has a name, written once."""
    if name not in SIZES:
        return Path(name).resolve()
    path = (CHECKPOINTS / name).resolve()
    if not path.exists():
        part = path.with_suffix(".part")
        random_checkpoint_write(path=part, config=SIZES[name], dtype=torch.bfloat16)
        part.replace(path)
    return path


def _bench(model: Path, options: argparse.Namespace) -> list[Row]:
    """Rows of one checkpoint."""
    works, absent = works_of(options), dict[str, str]()
    print(f"{model.name}: packing our weights", flush=True)
    with ExitStack() as stack:
        sides = our_sides(model, options)
        ours = {name: start(stack) for name, (_, start) in sides.items()}
        groups = groups_measure(model, ours, works, options, absent)
    measured = Measured(model, works, {name: packed for name, (packed, _) in sides.items()}, groups)
    print_notes(measured, absent)
    return model_rows(measured)


if __name__ == "__main__":
    main()
