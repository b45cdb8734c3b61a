"""Tokens per second of the engine: decoding at several batch sizes and reading a long prompt.

`python -m bench.engine_decode [--model DIR] [--threads N] [--rounds N]`

The peer is transformers' own forward pass with its cache, in the same process, round by round in turn. The
limit is what this machine could do at best in fp32: see `engine_limits`.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from bench.engine_limits import Machine, machine_measure, step_bytes
from bench.engine_peer import Peer
from bench.report import Row, compare, report
from inference.engine.core import Engine
from inference.engine.runner import Runner
from inference.engine.types import EngineConfig, GenerationRequest, SamplingParams
from inference.models import loader
from inference.models.config import ModelConfig
from inference.models.interface import CausalModel
from inference.models.loader import load_model
from inference.models.random_checkpoint import random_checkpoint_write
from inference.train.settings import nano_architecture

NANO = Path(loader.__file__).parent / "nano"
BATCHES = (1, 8, 32)
PROMPT = 128
LONG_PROMPT = 1024


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    if arguments.model is not None or (NANO / "model.safetensors").exists():
        path = arguments.model or NANO
        _bench(path, path.name, arguments)
        return
    print("no trained model is there: random weights of its architecture instead")
    with tempfile.TemporaryDirectory() as folder:
        random_checkpoint_write(path=Path(folder), config=nano_architecture(), dtype=torch.bfloat16)
        _bench(Path(folder), "random weights", arguments)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.engine_decode")
    parser.add_argument("--model", type=Path, help="checkpoint folder (default: the project's own model)")
    parser.add_argument("--threads", type=int, default=1, help="threads of both sides")
    parser.add_argument("--rounds", type=int, default=5, help="repetitions of which the median counts")
    parser.add_argument("--new", type=int, default=64, help="tokens decoded per sequence and round")
    return parser.parse_args()


def _bench(path: Path, name: str, arguments: argparse.Namespace) -> None:
    model, peer, config = load_model(path), Peer(path), ModelConfig.from_dir(path)
    context = PROMPT + arguments.new // 2
    machine = machine_measure("float32", size=step_bytes(config, batch=8, context=context))
    vocabulary = model.config.vocab_size
    rows: list[Row] = []
    for batch in BATCHES:
        prompts = [[(i * 7 + j * 3) % (vocabulary - 10) + 10 for j in range(PROMPT)] for i in range(batch)]
        ours, theirs = _in_turn(
            partial(decode_rate, model, prompts, arguments.new),
            partial(peer.decode_rate, prompts, arguments.new),
            arguments.rounds,
        )
        rows.append(
            compare(
                f"decode, batch {batch}",
                ours,
                "tok/s",
                peer="transformers",
                peer_value=theirs,
                limit=machine.decode_limit(config, batch=batch, context=context),
            )
        )
    rows.extend(_prefill_rows(model, peer, arguments.rounds, machine, config))
    title = f"{name}, fp32, {arguments.threads} thread(s), prompt {PROMPT} + {arguments.new} new"
    print(report("engine_decode", rows, title=title))


def _prefill_rows(
    model: CausalModel, peer: Peer, rounds: int, machine: Machine, config: ModelConfig
) -> list[Row]:
    """One row, or none when the model's context is too short."""
    if model.config.max_position_embeddings <= LONG_PROMPT:
        return []
    prompt = [(j * 5) % (model.config.vocab_size - 10) + 10 for j in range(LONG_PROMPT)]
    ours, theirs = _in_turn(lambda: prefill_rate(model, prompt), lambda: peer.prefill_rate(prompt), rounds)
    limit = machine.prefill_limit(config, length=LONG_PROMPT)
    return [
        compare(
            f"prefill, {LONG_PROMPT} tokens",
            ours,
            "tok/s",
            peer="transformers",
            peer_value=theirs,
            limit=limit,
        )
    ]


def _in_turn(ours: Callable[[], float], theirs: Callable[[], float], rounds: int) -> tuple[float, float]:
    """Medians of both, measured alternately after one round to warm up."""
    ours(), theirs()
    pairs = [(ours(), theirs()) for _ in range(rounds)]
    return statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs)


def decode_rate(model: CausalModel, prompts: list[list[int]], new: int) -> float:
    """Tokens per second of steps in which every sequence decodes, prompts read before the clock starts."""
    engine = _engine(model, len(prompts))
    for number, prompt in enumerate(prompts):
        params = SamplingParams(max_tokens=new + len(prompts), temperature=0)
        engine.submit(GenerationRequest(f"bench-{number}", tuple(prompt), params))
    while len(engine.step()) < len(prompts):
        pass
    start = time.perf_counter()
    produced = sum(len(engine.step()) for _ in range(new - 1))
    elapsed = time.perf_counter() - start
    if produced != len(prompts) * (new - 1):
        raise RuntimeError("a sequence ended early")
    return produced / elapsed


def prefill_rate(model: CausalModel, prompt: list[int]) -> float:
    """Prompt tokens per second until the first new token."""
    engine = _engine(model, 1)
    engine.submit(GenerationRequest("bench", tuple(prompt), SamplingParams(max_tokens=1, temperature=0)))
    start = time.perf_counter()
    while engine.has_work:
        engine.step()
    return len(prompt) / (time.perf_counter() - start)


def _engine(model: CausalModel, batch: int) -> Engine:
    config = EngineConfig(max_running=batch, pages=max(128, 24 * batch))
    token_bytes = (b"",) * model.config.vocab_size
    return Engine(config=config, runner=Runner(model, config), eos_ids=(), token_bytes=token_bytes)


if __name__ == "__main__":
    main()
