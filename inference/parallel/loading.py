"""From a checkpoint folder to one rank's part of the model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from inference.layers.decoder_layer import DecoderLayer
from inference.layers.forms import Forms, Packing, forms_for
from inference.models.checkpoint import Checkpoint
from inference.models.config import ModelConfig
from inference.models.config_file import read_config
from inference.models.deepseek import DeepseekModel
from inference.models.deepseek_build import DeepseekLoader
from inference.models.digest import checkpoint_digest
from inference.models.fields import Fields
from inference.models.fp8 import Fp8Blocks
from inference.models.names import expected_tensors, ignored_prefixes
from inference.models.packed import PackedStore
from inference.parallel.checkpoint import ShardedCheckpoint
from inference.parallel.layers import OwnExperts, SummedLayer
from inference.parallel.ranks import Ranks
from inference.parallel.sharding import ExpertLayout, ShardPlan
from moe_ops.linear import LAYOUT_VERSION, Activations, WeightFormat


def load_part(
    path: Path,
    ranks: Ranks,
    *,
    experts: ExpertLayout = "whole",
    weights: WeightFormat = "float32",
    activations: Activations = "int8",
    native: bool | None = None,
    mtp: bool = False,
    cache_dir: Path | None = None,
) -> DeepseekModel:
    """The part of the DeepSeek model in the folder `path` that this process holds.

    Raises `ConfigError` or `CheckpointError` as loading the whole does, and `ValueError` when heads, widths
    or experts can not be shared evenly.
    """
    data, source = read_config(path)
    config = ModelConfig.from_dict(data, source=source)
    plan = ShardPlan(config, ranks, experts)
    fp8 = Fp8Blocks.from_fields(Fields(data, source))
    packing = Packing(weights, _own_forms(plan, native), activations)
    with torch.inference_mode(), ShardedCheckpoint(path, plan, fp8=fp8) as checkpoint:
        checkpoint.check(expected_tensors(config, mtp=mtp), ignored_prefixes(config))
        loader = _PartLoader(plan, checkpoint, packing, _store(path, cache_dir, plan, packing))
        return loader.model(mtp=mtp and config.num_nextn_predict_layers > 0)


class _PartLoader(DeepseekLoader):
    """Builds layers of the local sizes whose results are summed."""

    def __init__(self, plan: ShardPlan, checkpoint: Checkpoint, packing: Packing, store: PackedStore) -> None:
        super().__init__(plan.local_config, checkpoint, packing, store)
        self._plan = plan

    def _layer(self, index: int) -> DecoderLayer:
        layer, config = super()._layer(index), self._plan.config
        apart = self._plan.experts == "whole" and config.is_moe_layer(index) and config.n_shared_experts
        return SummedLayer(
            attention_norm=layer.attention_norm,
            attention=layer.attention,
            mlp_norm=layer.mlp_norm,
            mlp=layer.mlp,
            forms=layer.forms,
            ranks=self._plan.ranks,
            shared=self._mlp(f"model.layers.{index}.mlp.shared_experts") if apart else None,
        )

    def _expert_modules(self, prefix: str) -> list[tuple[str, int]]:
        if self._plan.experts == "cut":
            return super()._expert_modules(prefix)
        return [(f"{prefix}.experts.{expert}", 1) for expert in self._plan.local_experts]


def _own_forms(plan: ShardPlan, native: bool | None) -> Forms:
    forms = forms_for(native=native)
    if plan.experts == "cut":
        return forms
    return replace(forms, grouped_mlp_=OwnExperts(plan.local_experts.start, forms.grouped_mlp_).add_)


def _store(path: Path, cache_dir: Path | None, plan: ShardPlan, packing: Packing) -> PackedStore:
    """The folder of this part's packed weights."""
    if cache_dir is None:
        return PackedStore(None)
    part = f"part {plan.ranks.rank} of {plan.ranks.size}, experts {plan.experts}"
    settings = f"{packing.key}, layout {LAYOUT_VERSION}, {part}"
    return PackedStore(cache_dir / checkpoint_digest(path, cache_dir=cache_dir, settings=settings))
