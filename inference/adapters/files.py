"""Reading an adapter folder as PEFT writes it: `adapter_config.json` and `adapter_model.safetensors`.

A tensor that matches nothing, a lone factor or a setting that would change the result is an error: an
adapter that is half applied serves answers nobody trained.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import torch
from safetensors import SafetensorError, safe_open

from inference.adapters.targets import refusal
from moe_ops.lora import LoraBank, LowRank, pack_low_rank

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_KEY = re.compile(r"^base_model\.model\.(?P<module>.+)\.lora_(?P<factor>[AB])(?:\.default)?\.weight$")
_FLOATS = {"F32", "F16", "BF16"}
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "bias": ("none", None),
    "use_dora": (False, None),
    "fan_in_fan_out": (False, None),
    "lora_bias": (False, None),
    "modules_to_save": (None, []),
    "trainable_token_indices": (None, []),
    "target_parameters": (None, []),
}
_SHOWN = 6
_NUMBER_MAX = 1e9


class AdapterError(ValueError):
    """The folder is not a LoRA adapter of this model; the message names everything that does not fit."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """One adapter in memory. `digest` is the SHA-256 of its two files and names its cached prefixes."""

    digest: str
    bank: LoraBank

    @property
    def modules(self) -> Mapping[str, LowRank]:
        """What it changes, by module."""
        return self.bank.modules


@dataclass(frozen=True, slots=True)
class _Settings:
    rank: int
    alpha: float
    root: bool
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]

    def scale(self, module: str, rank: int) -> float:
        """alpha / r, or alpha / √r of rank-stabilised LoRA (arXiv:2312.03732)."""
        alpha = _by_pattern(self.alpha_pattern, module, self.alpha)
        return float(alpha / math.sqrt(rank) if self.root else alpha / rank)


def adapter_read(folder: Path, *, modules: Mapping[str, tuple[int, int]], rank_max: int) -> Adapter:
    """The adapter in `folder` for a model whose adaptable `modules` have these (outputs, inputs).

    Factors are kept as exactly as float32 is, the scale being part of B. Raises `AdapterError`.
    """
    settings = _settings(folder / CONFIG)
    try:
        with safe_open(folder / WEIGHTS, framework="pt", device="cpu") as file:
            keys = _keys(folder, file, modules, settings, rank_max)
            changes = {
                module: pack_low_rank(_finite(file, a), _finite(file, b, settings.scale(module, rank)))
                for module, (a, b, rank) in keys.items()
            }
        return Adapter(_digest(folder), LoraBank(changes))
    except (OSError, SafetensorError) as error:
        raise AdapterError(f"{folder / WEIGHTS}: not readable as safetensors: {error}") from error


def _settings(file: Path) -> _Settings:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise AdapterError(f"{file}: not readable as JSON: {error}") from error
    if not isinstance(data, dict) or data.get("peft_type") != "LORA":
        raise AdapterError(f"{file}: peft_type: expected 'LORA'")
    for name, allowed in _NEUTRAL.items():
        if data.get(name) not in allowed:
            raise AdapterError(f"{file}: {name}: only {allowed[0]!r} can be served, found {data[name]!r}")
    rank, alpha = data.get("r"), data.get("lora_alpha")
    if type(rank) is not int or rank < 1:
        raise AdapterError(f"{file}: r: expected an integer of at least 1, found {rank!r}")
    if not _is_number(alpha):
        raise AdapterError(f"{file}: lora_alpha: expected a number, found {str(alpha)[:40]}")
    return _Settings(
        rank=rank,
        alpha=alpha,
        root=bool(data.get("use_rslora")),
        rank_pattern=_pattern(file, data, "rank_pattern", whole=True),
        alpha_pattern=_pattern(file, data, "alpha_pattern"),
    )


def _pattern(file: Path, data: Mapping[str, Any], name: str, *, whole: bool = False) -> dict[str, Any]:
    value = data.get(name) or {}
    numbers = isinstance(value, dict) and all(
        _is_number(v) and v > 0 and (type(v) is int or not whole) for v in value.values()
    )
    if not numbers:
        kind = "integers" if whole else "numbers"
        raise AdapterError(f"{file}: {name}: expected an object of module names to positive {kind}")
    return dict(value)


def _is_number(value: object) -> TypeGuard[int | float]:
    """JSON knows integers of any length, and Python's reader NaN and infinity too."""
    return isinstance(value, int | float) and type(value) is not bool and abs(value) <= _NUMBER_MAX


def _by_pattern(pattern: Mapping[str, Any], module: str, default: Any) -> Any:
    """PEFT's rule: the first key that is the module's name or ends it at a dot."""
    return next((v for key, v in pattern.items() if f".{module}".endswith(f".{key.lstrip('.^')}")), default)


def _keys(
    folder: Path,
    file: Any,
    modules: Mapping[str, tuple[int, int]],
    settings: _Settings,
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
        rank: int = _by_pattern(settings.rank_pattern, module, settings.rank)
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
