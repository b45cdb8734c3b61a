"""What LoRA adapters cost: a batch of eight requests with eight different ones, beside the same without.

`python -m bench.adapters [--model DIR|S|M] [--weights FORMAT] [--rank R] [--rounds N]`

Two kinds are timed: adapters on attention's projections, as most are, and adapters on everything, routed
experts included. Runs take turns and medians count.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file

from bench.engine_peers import checkpoint_at
from bench.report import Row, report
from inference.adapters.targets import adapted_modules
from inference.engine.core import Engine
from inference.engine.loading import engine_load
from inference.engine.types import EngineConfig, GenerationRequest, SamplingParams
from inference.models.config import ModelConfig

ADAPTERS = 8
PROMPT = 64
KINDS = ("attention", "everything")


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    path = checkpoint_at(options.model)
    config = EngineConfig(
        threads=options.threads,
        weights=options.weights,
        max_running=ADAPTERS,
        adapters_max=2 * ADAPTERS,
        adapter_rank_max=options.rank,
    )
    engine = engine_load(path, config).engine
    with tempfile.TemporaryDirectory() as folder:
        for kind in KINDS:
            _adapters_load(engine, path, Path(folder), kind, options.rank)
    samples: dict[str, list[float]] = {kind: [] for kind in ("none", *KINDS)}
    for turn in range(options.rounds + 1):
        for kind, found in samples.items():
            rate = _decode_rate(engine, kind, options.new)
            if turn:  # the first round warms up
                found.append(rate)
    title = (
        f"{path.name} {options.weights}, batch {ADAPTERS}, an adapter of rank {options.rank} each, "
        f"{options.threads} thread(s)"
    )
    report("adapters", _rows(samples), title=title)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.adapters")
    parser.add_argument("--model", default="M", help="checkpoint folder, or S or M")
    parser.add_argument("--weights", default="int8")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--new", type=int, default=32, help="steps timed in a round")
    return parser.parse_args(arguments)


def _rows(samples: Mapping[str, list[float]]) -> list[Row]:
    medians = {kind: statistics.median(found) for kind, found in samples.items()}
    plain = medians.pop("none")
    rows = [Row("without adapters", plain, "tok/s")]
    rows += [
        Row(f"eight adapters on {kind}", rate, "tok/s", peer="without", peer_value=plain, ratio=rate / plain)
        for kind, rate in medians.items()
    ]
    return rows


def _decode_rate(engine: Engine, kind: str, new: int) -> float:
    """Tokens per second of steps in which all requests decode; kind "none" is without adapters."""
    for index in range(ADAPTERS):
        prompt = tuple((index * 7 + place * 3) % 200 + 10 for place in range(PROMPT))
        params = SamplingParams(max_tokens=new + 2, temperature=0, ignore_eos=True)
        name = None if kind == "none" else f"{kind}-{index}"
        engine.submit(GenerationRequest(f"{kind}-{index}", prompt, params, adapter=name))
    while len(engine.step()) < ADAPTERS:
        pass
    start = time.perf_counter()
    produced = sum(len(engine.step()) for _ in range(new))
    elapsed = time.perf_counter() - start
    while engine.has_work:
        engine.step()
    return produced / elapsed


def _adapters_load(engine: Engine, model: Path, parent: Path, kind: str, rank: int) -> None:
    modules = adapted_modules(ModelConfig.from_dir(model))
    if kind == "attention":
        modules = {name: shape for name, shape in modules.items() if ".self_attn." in name}
    for index in range(ADAPTERS):
        folder = parent / f"{kind}-{index}"
        folder.mkdir()
        _adapter_write(folder, modules, rank, seed=index)
        engine.changes.load(folder.name, str(folder))


def _adapter_write(folder: Path, modules: Mapping[str, tuple[int, int]], rank: int, *, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, (outputs, inputs) in modules.items():
        for factor, shape in (("A", (rank, inputs)), ("B", (outputs, rank))):
            weight = torch.randn(shape, generator=generator).mul_(0.01)
            tensors[f"base_model.model.{name}.lora_{factor}.weight"] = weight.bfloat16()
    save_file(tensors, folder / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": rank, "lora_alpha": rank}
    (folder / "adapter_config.json").write_text(json.dumps(settings))


if __name__ == "__main__":
    main()
