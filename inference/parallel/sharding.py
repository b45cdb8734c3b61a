"""Which part of every tensor of a DeepSeek checkpoint a rank holds.

Column-parallel matrices (queries, keys and values, gate and up) are cut by rows, their outputs being heads
or MLP channels; row-parallel ones (attention's output, down) by columns. Heads and channels are contiguous
in both.
Routed experts are either dealt out whole or cut like any other MLP.

Method: Megatron-LM, Shoeybi et al. 2019, arXiv 1909.08053, sections 3 and 5; experts: GShard, Lepikhin et al.
2020, arXiv 2006.16668.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

from inference.models.config import ModelConfig
from inference.parallel.ranks import Ranks

ExpertLayout = Literal["whole", "cut"]
_EXPERT = re.compile(r"\.mlp\.experts\.(\d+)\.")
_BY_ROWS = ("q_proj", "q_b_proj", "kv_b_proj", "gate_proj", "up_proj")
_BY_COLUMNS = ("o_proj", "down_proj")


@dataclass(frozen=True, slots=True)
class Cut:
    """A contiguous part of a matrix: `start` to `stop` of its rows (`dim` 0) or columns (1)."""

    dim: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """What one rank holds of the model that `config` describes.

    `experts` "whole": each rank has all of some experts, "cut": some channels of all.
    """

    config: ModelConfig
    ranks: Ranks
    experts: ExpertLayout = "whole"

    def __post_init__(self) -> None:
        config, share = self.config, self.ranks.share
        share("num_attention_heads", config.num_attention_heads)
        if config.first_k_dense_replace:
            share("intermediate_size", config.intermediate_size)
        if config.n_shared_experts or self.experts == "cut":
            share("moe_intermediate_size", config.moe_intermediate_size)
        if self.experts == "whole":
            share("n_routed_experts", config.n_routed_experts)

    @property
    def local_config(self) -> ModelConfig:
        """The configuration of the rank's part as if it were a model of its own.

        It names all routed experts, because each rank routes among all; where experts are whole, it names no
        shared one, because what is cut does not fit into their stack.
        """
        config, size = self.config, self.ranks.size
        width, shared = config.moe_intermediate_size, config.n_shared_experts
        return replace(
            config,
            num_attention_heads=config.num_attention_heads // size,
            intermediate_size=config.intermediate_size // size,
            moe_intermediate_size=width // size if self.experts == "cut" else width,
            n_shared_experts=shared if self.experts == "cut" else 0,
        )

    @property
    def local_experts(self) -> range:
        """The routed experts of which the rank holds anything."""
        config = self.config
        if self.experts == "cut":
            return range(config.n_routed_experts)
        return self.ranks.share("n_routed_experts", config.n_routed_experts)

    def holds(self, name: str) -> bool:
        """Whether the rank has any part of the tensor `name`."""
        found = _EXPERT.search(name)
        return found is None or int(found.group(1)) in self.local_experts

    def cut(self, name: str, shape: tuple[int, ...]) -> Cut | None:
        """The rank's part of the tensor `name` of the whole `shape`; None: all of it."""
        if self.experts == "whole" and _EXPERT.search(name):
            return None
        kind = name.removesuffix(".weight").rpartition(".")[2]
        if kind not in _BY_ROWS + _BY_COLUMNS:
            return None
        dim = 0 if kind in _BY_ROWS else 1
        part = self.ranks.share(name, shape[dim])
        return Cut(dim, part.start, part.stop)
