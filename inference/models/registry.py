"""The architectures that are served, by the `model_type` of a checkpoint's `config.json`.

An architecture is four functions; docs/adding-an-architecture.md goes through a whole one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from inference.layers.forms import Packing
from inference.models import deepseek_build, qwen3_moe
from inference.models.checkpoint import Checkpoint
from inference.models.config import ModelConfig
from inference.models.fields import Fields
from inference.models.interface import CausalModel
from inference.models.names import expected_tensors, ignored_prefixes
from inference.models.packed import PackedStore
from inference.models.qwen3_moe import Qwen3MoeConfig

C = TypeVar("C")


@dataclass(frozen=True, slots=True)
class Family(Generic[C]):
    """One architecture, its configuration being a `C`.

    `read` makes it from the mapping of a `config.json` and that file's name, `tensors` says which names and
    shapes the files must have (with those of the prediction module, if wanted and there), `ignored` which
    prefixes of other names do no harm, and `build` makes the model from the open files,
    keeping packed pieces in the store.
    """

    read: Callable[[Mapping[str, object], str], C]
    tensors: Callable[[C, bool], Iterable[tuple[str, tuple[int, ...]]]]
    ignored: Callable[[C], tuple[str, ...]]
    build: Callable[[C, Checkpoint, Packing, PackedStore, bool], CausalModel]


_DEEPSEEK = Family(
    read=lambda data, source: ModelConfig.from_dict(data, source=source),
    tensors=lambda config, mtp: expected_tensors(config, mtp=mtp),
    ignored=ignored_prefixes,
    build=deepseek_build.build,
)
_FAMILIES: dict[str, Family[Any]] = {
    "deepseek_v2": _DEEPSEEK,
    "deepseek_v3": _DEEPSEEK,
    "kimi_k2": _DEEPSEEK,
    "qwen3_moe": Family(
        read=Qwen3MoeConfig.from_dict,
        tensors=qwen3_moe.tensors,
        ignored=lambda config: (),
        build=qwen3_moe.build,
    ),
}


def family_of(fields: Fields) -> Family[Any]:
    """The architecture of a `config.json`. Raises `ConfigError` for one that is not served."""
    return _FAMILIES[fields.choice("model_type", None, tuple(_FAMILIES))]
