"""Reading an adapter folder as PEFT writes it: `adapter_config.json` and `adapter_model.safetensors`.

A tensor that matches nothing, a lone factor or a setting that would change the result is an error: an
adapter that is half applied serves answers nobody trained.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from inference.adapters.settings import AdapterError, Settings, read_settings
from inference.adapters.targets import refusal
from moe_ops.lora import LoraBank, LowRank, pack_low_rank

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_KEY = re.compile(r"^base_model\.model\.(?P<module>.+)\.lora_(?P<factor>[AB])(?:\.default)?\.weight$")
_FLOATS = {"F32", "F16", "BF16"}
_SHOWN = 6

__all__ = ["Adapter", "AdapterError", "adapter_read"]


@dataclass(frozen=True, slots=True)
class Adapter:
    """One adapter in memory. `digest` is the SHA-256 of its two files and names its cached prefixes."""

    digest: str
    bank: LoraBank

    @property
    def modules(self) -> Mapping[str, LowRank]:
        """What it changes, by module."""
        return self.bank.modules


def adapter_read(folder: Path, *, modules: Mapping[str, tuple[int, int]], rank_max: int) -> Adapter:
    """The adapter in `folder` for a model whose adaptable `modules` have these (outputs, inputs).

    Factors are kept as exactly as float32 is, the scale being part of B. Raises `AdapterError`.
    """
    try:
        with safe_open(folder / WEIGHTS, framework="pt", device="cpu") as file:
            adapted = {match["module"] for key in file.keys() if (match := _KEY.match(key))}  # noqa: SIM118
            settings = read_settings(folder / CONFIG, adapted & modules.keys())
            keys = _keys(folder, file, modules, settings, rank_max)
            changes = {
                module: pack_low_rank(_finite(file, a), _finite(file, b, settings.scale(module, rank)))
                for module, (a, b, rank) in keys.items()
            }
        return Adapter(_digest(folder), LoraBank(changes))
    except (OSError, SafetensorError) as error:
        raise AdapterError(f"{folder / WEIGHTS}: not readable as safetensors: {error}") from error


def _keys(
    folder: Path,
    file: Any,
    modules: Mapping[str, tuple[int, int]],
    settings: Settings,
    rank_max: int,
) -> dict[str, tuple[str, str, int]]:
    """Names of both factors and the rank of each adapted module; all faults in one error."""
    found: dict[str, dict[str, str]] = {}
    faults: list[str] = []
    for key in file.keys():  # noqa: SIM118 -- an open file, not a mapping
        match = _KEY.match(key)
        if match is None:
            faults.append(f"{key} is no LoRA factor")
        elif match["module"] not in modules:
            faults.append(refusal(match["module"]))
        elif found.setdefault(match["module"], {}).setdefault(match["factor"], key) != key:
            faults.append(f"{key} is there twice")
    keys: dict[str, tuple[str, str, int]] = {}
    for module, factors in found.items():
        if set(factors) != {"A", "B"}:
            faults.append(f"{module} has one factor only: {', '.join(factors.values())}")
            continue
        rank = settings.rank_of(module)
        outputs, inputs = modules[module]
        faults += _misshapen(file, factors["A"], (rank, inputs)) + _misshapen(
            file, factors["B"], (outputs, rank)
        )
        if rank > rank_max:
            faults.append(f"{module} has rank {rank}; at most {rank_max} is served")
        keys[module] = factors["A"], factors["B"], rank
    if not found and not faults:
        faults.append("it has no tensors")
    if faults:
        more = f"; and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        raise AdapterError(f"{folder}: not an adapter of this model: {'; '.join(faults[:_SHOWN])}{more}")
    return keys


def _misshapen(file: Any, key: str, expected: tuple[int, int]) -> list[str]:
    header = file.get_slice(key)
    shape, dtype = tuple(header.get_shape()), header.get_dtype()
    if dtype not in _FLOATS:
        return [f"{key} has the unsupported type {dtype}"]
    return [] if shape == expected else [f"{key} has shape {shape}, expected {expected}"]


def _finite(file: Any, key: str, scale: float = 1.0) -> torch.Tensor:
    tensor: torch.Tensor = file.get_tensor(key).double() * scale
    if not tensor.float().isfinite().all():
        raise AdapterError(f"{key} has numbers that are not finite")
    return tensor


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for name in (CONFIG, WEIGHTS):
        with (folder / name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
