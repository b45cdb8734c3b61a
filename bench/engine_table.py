"""From the samples of the engine bench to rows: ratios, limits, memory, start."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from bench.engine_groups import Group
from bench.engine_limits import Machine, cache_bytes_per_token, machine_measure, step_bytes
from bench.engine_sides import Facts
from bench.peers.pack import Packed
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
# Peak memory may be so much of the rival's.
_MEMORY_TARGET = 1.15


@dataclass(frozen=True, slots=True)
class Measured:
    """One checkpoint's run: our sides with what their packing took, and all groups they were measured in."""

    model: Path
    works: Sequence[Work]
    ours: Mapping[str, Packed]
    groups: Sequence[Group]


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
    for ours, packed in measured.ours.items():
        rows += _our_rows(measured, ours, packed, cache_bytes_per_token(config, weights=_weights_of(ours)))
    for group in measured.groups:
        for name in group.peers:
            if name in group.facts:
                rows += _start_rows(f"{measured.model.name} {name}", group.facts[name])
    _samples_write(measured)
    return rows


def print_notes(measured: Measured, absent: Mapping[str, str]) -> None:
    """Say which sides are missing from the table and why, and which figures are of a shorter work."""
    for name, reason in absent.items():
        print(f"left out: {measured.model.name}: {name}: {reason}", flush=True)
    for group in measured.groups:
        for (name, work), note in group.rounds.notes.items():
            print(f"too slow: {measured.model.name}: {name}, {work.name}: {note}", flush=True)


def _weights_of(name: str) -> WeightFormat:
    return next(one for one in get_args(WeightFormat) if name.endswith(f" {one}"))


def _limit(machine: Machine, config: ModelConfig, work: Work) -> float:
    if work.kind == "prefill":
        return machine.prefill_limit(config, length=work.prompt)
    return machine.decode_limit(config, batch=work.batch, context=work.context)


def _work_rows(measured: Measured, ours: str, work: Work, limit: float) -> list[Row]:
    """Against the rivals of this format, against the best of all engines, and against transformers."""
    weights = _weights_of(ours)
    families = [_RIVALS.get(weights, ()), ("llama.cpp ", "vLLM "), ("transformers ",)]
    metric = f"{measured.model.name} {weights}: {work.name}"
    rows, seen = [], set()
    for prefixes in families:
        best = _best(measured, ours, work, prefixes)
        if best is not None and best[1] not in seen:
            theirs, name, beside = best
            seen.add(name)
            rows.append(compare(metric, beside, "tok/s", peer=name, peer_value=theirs, limit=limit))
    if rows:
        return rows
    values = [value for group in measured.groups if (value := group.rounds.median(ours, work)) is not None]
    return [compare(metric, values[0], "tok/s", limit=limit)] if values else []


def _best(
    measured: Measured, ours: str, work: Work, prefixes: Sequence[str]
) -> tuple[float, str, float] | None:
    """The fastest peer of a family: its median, its name, and our median beside it."""
    found = []
    for group in measured.groups:
        value = group.rounds.median(ours, work)
        for name in group.peers:
            rate = group.rounds.median(name, work)
            if name.startswith(tuple(prefixes)) and rate is not None and value is not None:
                found.append((rate, name, value))
    return max(found, default=None)


def _machine_rows(model: str, machine: Machine) -> list[Row]:
    name = f"{model} {machine.weights}"
    return [
        Row(f"{name}: memory read", machine.read_bytes / 1e9, "GB/s"),
        Row(f"{name}: arithmetic", machine.operations / 1e9, "GOP/s"),
        Row(f"{name}: arithmetic of attention", machine.float_operations / 1e9, "GOP/s"),
    ]


def _our_rows(measured: Measured, ours: str, packed: Packed, cache_bytes: float) -> list[Row]:
    """Memory beside the rival's, the cache beside its formula, start, and what packing took."""
    name = f"{measured.model.name} {ours}"
    found = [group.facts[ours] for group in measured.groups if ours in group.facts]
    rows = [
        Row(f"{name}: packing at the first start", packed.seconds, "s"),
        Row(f"{name}: peak memory of packing", packed.peak_bytes / 2**20, "MiB"),
    ]
    if not found:
        return rows
    facts = found[-1]
    rival, peak = _rival_memory(measured, ours)
    memory = compare(
        f"{name}: peak memory",
        facts.peak_bytes / 2**20,
        "MiB",
        peer=rival,
        peer_value=peak,
        limit=None if peak is None else peak * _MEMORY_TARGET,
        lower_is_better=True,
    )
    per_token = (facts.more or {}).get("cache_bytes_per_token", 0.0)
    cache = compare(f"{name}: cache per token", per_token, "B", limit=cache_bytes, lower_is_better=True)
    return [memory, cache, *_start_rows(name, facts, memory=False), *rows]


def _rival_memory(measured: Measured, ours: str) -> tuple[str | None, float | None]:
    """The first rival that was measured, and its peak memory in MiB."""
    for prefix in _RIVALS.get(_weights_of(ours), ()):
        for group in measured.groups:
            for name, facts in group.facts.items():
                if name.startswith(prefix):
                    return name, facts.peak_bytes / 2**20
    return None, None


def _start_rows(name: str, facts: Facts, *, memory: bool = True) -> list[Row]:
    rows = [Row(f"{name}: peak memory", facts.peak_bytes / 2**20, "MiB")] if memory else []
    if facts.load_s is not None:
        rows.append(Row(f"{name}: loading weights", facts.load_s, "s"))
    if facts.start_s is not None:
        rows.append(Row(f"{name}: start", facts.start_s, "s"))
    return rows


def _samples_write(measured: Measured) -> None:
    """Every sample, for who wants to see the spread."""
    samples = [
        {"group": number, "side": side, "work": work.name, "tokens_per_s": values}
        for number, group in enumerate(measured.groups)
        for (side, work), values in group.rounds.samples.items()
    ]
    path = FOLDER / f"engine_peers_samples_{measured.model.name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(samples, indent=1) + "\n", encoding="utf-8")
