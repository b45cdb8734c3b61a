"""From the samples of the engine bench to rows: ratios, limits, memory, start."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from bench.engine_limits import Machine, machine_measure, step_bytes
from bench.engine_sides import Runner, Timed
from bench.peers.process import ProcessSide
from bench.peers.work import Work
from bench.report import FOLDER, Row, compare
from inference.models.config import ModelConfig
from moe_ops.linear import WeightFormat

# Which peers a format of ours is measured against: those with weights of the same size, and transformers.
_RIVALS: Mapping[str, Sequence[str]] = {
    "int8": ("llama.cpp q8_0",),
    "bfloat16": ("llama.cpp bf16", "vLLM "),
    "float32": ("transformers ",),
}


@dataclass(frozen=True, slots=True)
class Measured:
    """One checkpoint's run: names of our sides and of the peers', and the runner with their samples."""

    model: Path
    works: Sequence[Work]
    ours: Sequence[str]
    theirs: Sequence[str]
    runner: Runner


def model_rows(measured: Measured) -> list[Row]:
    """A row for each of our formats, work and group of peers; then memory and start of every side."""
    config = ModelConfig.from_dir(measured.model)
    rows: list[Row] = []
    for ours in measured.ours:
        weights = _weights_of(ours)
        size = step_bytes(config, batch=8, context=measured.works[0].context, weights=weights)
        machine = machine_measure(weights, size=size)
        rows += _machine_rows(measured.model.name, machine)
        for work in measured.works:
            rows += _work_rows(measured, ours, work, _limit(machine, config, work))
    for name, side in measured.runner.sides.items():
        rows += _side_rows(measured.model.name, name, side)
    _samples_write(measured)
    return rows


def print_absent(absent: Mapping[str, str]) -> None:
    """Say which sides are missing from the table, and why."""
    for name, reason in absent.items():
        print(f"left out: {name}: {reason}", flush=True)


def _weights_of(name: str) -> WeightFormat:
    return next(one for one in get_args(WeightFormat) if name.endswith(f" {one}"))


def _limit(machine: Machine, config: ModelConfig, work: Work) -> float:
    if work.kind == "prefill":
        return machine.prefill_limit(config, length=work.prompt)
    return machine.decode_limit(config, batch=work.batch, context=work.context)


def _work_rows(measured: Measured, ours: str, work: Work, limit: float) -> list[Row]:
    """Against the rivals of this format, against the best of all engines, and against transformers."""
    value = measured.runner.median(ours, work)
    if value is None:
        return []
    weights = _weights_of(ours)
    groups = [_RIVALS.get(weights, ()), ("llama.cpp ", "vLLM "), ("transformers ",)]
    metric = f"{measured.model.name} {weights}: {work.name}"
    rows, seen = [], set()
    for prefixes in groups:
        best = _best(measured, work, prefixes)
        if best is not None and best[0] not in seen:
            seen.add(best[0])
            rows.append(compare(metric, value, "tok/s", peer=best[0], peer_value=best[1], limit=limit))
    return rows or [compare(metric, value, "tok/s", limit=limit)]


def _best(measured: Measured, work: Work, prefixes: Sequence[str]) -> tuple[str, float] | None:
    """The fastest peer of a group, with its median."""
    rates = [
        (rate, name)
        for name in measured.theirs
        if name.startswith(tuple(prefixes)) and (rate := measured.runner.median(name, work)) is not None
    ]
    if not rates:
        return None
    rate, name = max(rates)
    return name, rate


def _machine_rows(model: str, machine: Machine) -> list[Row]:
    name = f"{model} {machine.weights}"
    return [
        Row(f"{name}: memory read", machine.read_bytes / 1e9, "GB/s"),
        Row(f"{name}: arithmetic", machine.operations / 1e9, "GOP/s"),
    ]


def _side_rows(model: str, name: str, side: Timed) -> list[Row]:
    rows = [Row(f"{model} {name}: peak memory", side.peak_bytes / 2**20, "MiB")]
    if isinstance(side, ProcessSide):
        rows.append(Row(f"{model} {name}: loading weights", side.load_s, "s"))
        rows.append(Row(f"{model} {name}: start", side.start_s, "s"))
    return rows


def _samples_write(measured: Measured) -> None:
    """Every sample, for who wants to see the spread."""
    samples = [
        {"side": side, "work": work.name, "tokens_per_s": values}
        for (side, work), values in measured.runner.samples.items()
    ]
    path = FOLDER / f"engine_peers_samples_{measured.model.name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(samples, indent=1) + "\n", encoding="utf-8")
