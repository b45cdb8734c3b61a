"""From a checkpoint folder to one rank's part of the model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from inference.layers.forms import Packing
from inference.layers.moe import MoeMlp
from inference.models.checkpoint import CheckpointError
from inference.models.config import ModelConfig
from inference.models.config_file import read_config
from inference.models.decoder import DecoderLayer
from inference.models.deepseek import DeepseekModel
from inference.models.deepseek_build import _Loader
from inference.models.fields import Fields
from inference.models.fp8 import Fp8Blocks
from inference.models.names import expected_tensors, ignored_prefixes
from inference.parallel.checkpoint import ShardedCheckpoint
from inference.parallel.layers import OwnExperts, Summed
from inference.parallel.ranks import Ranks
from inference.parallel.sharding import ExpertLayout, ShardPlan
from moe_ops.grouped_mlp import PackedExperts, pack_experts

__all__ = ["CheckpointError", "load_part"]

_DEFAULT = Packing()


def load_part(
    path: Path,
    ranks: Ranks,
    *,
    experts: ExpertLayout = "whole",
    packing: Packing = _DEFAULT,
    mtp: bool = False,
) -> DeepseekModel:
    """The part of the DeepSeek model in the folder `path` that this process holds.

    Raises `ConfigError` or `CheckpointError` as loading the whole does, and `ValueError` when heads, widths
    or experts can not be shared evenly.
    """
    data, source = read_config(path)
    config = ModelConfig.from_dict(data, source=source)
    plan = ShardPlan(config, ranks, experts)
    fp8 = Fp8Blocks.from_fields(Fields(data, source))
    with torch.inference_mode(), ShardedCheckpoint(path, plan, fp8=fp8) as checkpoint:
        checkpoint.check(expected_tensors(config, mtp=mtp), ignored_prefixes(config))
        loader = _PartLoader(plan, checkpoint, packing)
        return loader.model(mtp=mtp and config.num_nextn_predict_layers > 0)


class _PartLoader(_Loader):
    """Builds layers of the local sizes and has their results summed."""

    def __init__(self, plan: ShardPlan, checkpoint: ShardedCheckpoint, packing: Packing) -> None:
        super().__init__(plan.local_config, checkpoint, packing)
        self._plan = plan

    def _layer(self, index: int) -> DecoderLayer:
        layer, ranks = super()._layer(index), self._plan.ranks
        return replace(layer, attention=Summed(layer.attention, ranks), mlp=Summed(layer.mlp, ranks))

    def _moe(self, prefix: str, index: int) -> MoeMlp | OwnExperts:
        if self._plan.experts == "cut":
            return super()._moe(prefix, index)
        biased = self._config.topk_method == "noaux_tc"
        bias = f"{prefix}.gate.e_score_correction_bias"
        own = self._plan.local_experts
        shared = [f"{prefix}.shared_experts"] if self._config.n_shared_experts else []
        return OwnExperts(
            router_ED=self._checkpoint.read(f"{prefix}.gate.weight", torch.float32),
            bias_E=self._checkpoint.read(bias, torch.float32) if biased else None,
            spec=self._router,
            routed=self._packed([f"{prefix}.experts.{expert}" for expert in own]),
            first=own.start,
            shared=self._packed(shared) if shared else None,
        )

    def _packed(self, prefixes: list[str]) -> PackedExperts:
        gate_up, down = [], []
        for prefix in prefixes:
            gate_up.append(
                torch.cat([self._weight(f"{prefix}.gate_proj"), self._weight(f"{prefix}.up_proj")])
            )
            down.append(self._weight(f"{prefix}.down_proj"))
        return pack_experts(torch.stack(gate_up), torch.stack(down), self._format)
