"""`adapter_config.json` as PEFT writes it: what is served of it, and what is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from inference.adapters.patterns import Pattern, compile_pattern

_NUMBER_MAX = 1e9
_OFF: tuple[Any, ...] = (False, None)
_NONE: tuple[Any, ...] = (None,)
_EMPTY: tuple[Any, ...] = (None, [], {})

HANDLED = frozenset(
    {"peft_type", "r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "init_lora_weights"}
)
"""Settings that `read_settings` reads."""

ONLY: Mapping[str, tuple[Any, ...]] = {
    "bias": ("none", None),
    "use_dora": _OFF,
    "use_qalora": _OFF,
    "use_bdlora": _NONE,
    "fan_in_fan_out": _OFF,
    "lora_bias": _OFF,
    "modules_to_save": _EMPTY,
    "trainable_token_indices": _EMPTY,
    "target_parameters": _EMPTY,
    "layer_replication": _EMPTY,
    "alora_invocation_tokens": _NONE,
    "arrow_config": _NONE,
    "kasa_config": _NONE,
    "monteclora_config": _NONE,
    "megatron_config": _NONE,
}
"""Settings that change what is computed or how tensors lie, with the values at which they do not."""

NEUTRAL = frozenset(
    {
        # where it comes from
        *("auto_mapping", "base_model_name_or_path", "peft_version", "revision", "task_type"),
        # which modules have factors: the tensors say it
        *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
        # training alone (VeLoRA changes the backward pass), or where it runs
        *("inference_mode", "lora_dropout", "velora_config", "runtime_config", "megatron_core"),
        # details of what another setting turns on
        *("loftq_config", "eva_config", "corda_config", "lora_ga_config", "qalora_group_size"),
        "ensure_weight_tying",
    }
)
"""Settings that change nothing here, whatever they say."""

_CHANGED_BASE = ("pissa", "corda", "olora", "loftq", "lora_ga")


class AdapterError(ValueError):
    """The folder is not a LoRA adapter of this model; the message names everything that does not fit."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What is served of the settings; a module's rank and scale may differ by its name."""

    rank: int
    alpha: float
    root: bool
    ranks: Pattern[int]
    alphas: Pattern[float]

    def rank_of(self, module: str) -> int:
        """The rank that its factors must have."""
        return self.ranks.get(module, self.rank)

    def scale(self, module: str, rank: int) -> float:
        """alpha / r, or alpha / √r of rank-stabilised LoRA (arXiv:2312.03732)."""
        alpha = self.alphas.get(module, self.alpha)
        return float(alpha / math.sqrt(rank) if self.root else alpha / rank)


def read_settings(file: Path, modules: Iterable[str]) -> Settings:
    """The settings in `file` for an adapter of these `modules`. Raises `AdapterError`."""
    data = _object(file)
    _refuse(file, data)
    rank, alpha, root = data.get("r"), data.get("lora_alpha"), data.get("use_rslora")
    if type(rank) is not int or rank < 1:
        raise AdapterError(f"{file}: r: expected an integer of at least 1, found {rank!r}")
    if not _is_number(alpha):
        raise AdapterError(f"{file}: lora_alpha: expected a number, found {str(alpha)[:40]}")
    if not isinstance(root, bool | None):
        raise AdapterError(f"{file}: use_rslora: expected true or false, found {str(root)[:40]}")
    names = list(modules)
    return Settings(
        rank=rank,
        alpha=alpha,
        root=bool(root),
        ranks=_pattern(file, data, "rank_pattern", names, whole=True),
        alphas=_pattern(file, data, "alpha_pattern", names),
    )


def _object(file: Path) -> dict[str, Any]:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise AdapterError(f"{file}: not readable as JSON: {error}") from error
    if not isinstance(data, dict) or data.get("peft_type") != "LORA":
        raise AdapterError(f"{file}: peft_type: expected 'LORA'")
    return data


def _refuse(file: Path, data: Mapping[str, Any]) -> None:
    """Refuse what would change the result; of an unknown setting nothing is known, so it must be off."""
    for name, value in data.items():
        if name in ONLY and value not in ONLY[name]:
            raise AdapterError(f"{file}: {name}: only {ONLY[name][0]!r} can be served, found {_short(value)}")
        if name not in ONLY and name not in NEUTRAL and name not in HANDLED and value not in (*_OFF, [], {}):
            raise AdapterError(f"{file}: {name}: not known, and it may change the result: {_short(value)}")
    way = data.get("init_lora_weights")
    if isinstance(way, str) and way.lower().startswith(_CHANGED_BASE):
        raise AdapterError(
            f"{file}: init_lora_weights: {_short(way)} changes the base weights, so these factors "
            "do not fit the published ones; save with path_initial_model_for_weight_conversion"
        )


def _pattern(
    file: Path, data: Mapping[str, Any], name: str, modules: list[str], *, whole: bool = False
) -> Pattern[Any]:
    value = data.get(name) or {}
    numbers = isinstance(value, dict) and all(
        _is_number(v) and v > 0 and (type(v) is int or not whole) for v in value.values()
    )
    if not numbers:
        kind = "integers" if whole else "numbers"
        raise AdapterError(f"{file}: {name}: expected an object of module names to positive {kind}")
    try:
        return compile_pattern(value, modules)
    except ValueError as error:
        raise AdapterError(f"{file}: {name}: {error}") from error


def _is_number(value: object) -> TypeGuard[int | float]:
    """JSON knows integers of any length, and Python's reader NaN and infinity too."""
    return isinstance(value, int | float) and type(value) is not bool and abs(value) <= _NUMBER_MAX


def _short(value: object) -> str:
    return repr(value)[:60]
