"""Our engine beside llama.cpp, vLLM and transformers: decoding at three batch sizes, and a long prompt.

`python -m bench.engine_peers [--model S|M|DIR …] [--peers build/peers] [--threads N] [--rounds N]`

Every side runs in a process of its own, loaded once; in each round each work is done by all sides in turn,
and medians count. The limit is what this machine could do at best, measured in the same run: the larger of
the time to read once what a step must read and the time of its multiplications at the best rate seen. A peer
that is not there (`python -m bench.peers setup`) is left out, which is said. Beside `engine_peers.json`, the
folder `build/bench` gets every sample of each checkpoint.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import torch

from bench.engine_sides import Runner, our_sides, peer_sides
from bench.engine_table import Measured, model_rows, print_absent
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
        "--new", type=int, default=128, help="tokens per sequence, a quarter of it at batch 32"
    )
    parser.add_argument("--batch", type=int, action="append", help="batch sizes (default: 1, 8 and 32)")
    parser.add_argument("--long", type=int, default=LONG_PROMPT, help="tokens of the long prompt")
    parser.add_argument("--weights", action="append", help="our formats (default: int8 and bfloat16)")
    parser.add_argument("--vllm", default="bfloat16/compiled", help="dtype/mode of vLLM, or 'none'")
    parser.add_argument("--hf", action="append", help="dtype/experts of transformers, or 'none'")
    return parser.parse_args(arguments)


def works_of(options: argparse.Namespace) -> list[Work]:
    """The works, in the order of the table. Large batches get fewer new tokens around the same context."""
    works = []
    for batch in options.batch or BATCHES:
        new = max(options.new // 4, 1) if batch > 8 else options.new
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
    works = works_of(options)
    with ExitStack() as stack:
        ours, theirs, absent = {}, {}, {}
        for name, start in our_sides(model, options).items():
            ours[name] = start(stack)
        for name, start in peer_sides(model, options).items():
            try:
                theirs[name] = start(stack)
            except RuntimeError as error:
                absent[name] = str(error)
        runner = Runner(ours | theirs)
        runner.warm_up(works)
        for number in range(options.rounds):
            print(f"{model.name}: round {number + 1} of {options.rounds}", flush=True)
            runner.round(works)
        print_absent(absent | runner.failed)
        measured = Measured(model, works, tuple(ours), tuple(theirs), runner)
        return model_rows(measured)


if __name__ == "__main__":
    main()
