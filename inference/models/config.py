"""The architecture of a DeepSeek-V2 or V3 checkpoint, read from its Hugging Face `config.json`.

Both spellings of the rotary settings are understood: the older `rope_theta` + `rope_scaling` and the newer
`rope_parameters`. What is missing or contradictory is refused with the field's name and what was expected:
a wrong default gives a model that runs and is silently worse.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from inference.models.config_file import read_config
from inference.models.fields import ConfigError, Fields

ScoringFunc = Literal["softmax", "sigmoid"]
TopkMethod = Literal["greedy", "group_limited_greedy", "noaux_tc"]

_FAMILIES = ("deepseek_v2", "deepseek_v3", "kimi_k2")  # Kimi K2 is a V3 by another name
_METHODS = ("greedy", "group_limited_greedy", "noaux_tc")
_LAYERS_MAX = 10_000
_POSITIONS_MAX = 1 << 20  # the rotary table is made for all of them

__all__ = ["ConfigError", "ModelConfig", "ScoringFunc", "TopkMethod", "YarnConfig"]


@dataclass(frozen=True, slots=True)
class YarnConfig:
    """YaRN's settings; `mscale_all_dim` of 0 leaves the softmax scale alone."""

    factor: float
    original_max_position_embeddings: int
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float = 0.0
    mscale_all_dim: float = 0.0
    attention_factor: float | None = None
    truncate: bool = True

    @classmethod
    def from_fields(cls, fields: Fields, *, max_position_embeddings: int) -> YarnConfig:
        original = fields.integer("original_max_position_embeddings", max_position_embeddings, at_least=1)
        return cls(
            factor=fields.number("factor", max_position_embeddings / original, above=0.0),
            original_max_position_embeddings=original,
            beta_fast=fields.number("beta_fast", 32.0, above=0.0),
            beta_slow=fields.number("beta_slow", 1.0, above=0.0),
            mscale=fields.number("mscale", 0.0),
            mscale_all_dim=fields.number("mscale_all_dim", 0.0),
            attention_factor=fields.optional_number("attention_factor"),
            truncate=fields.flag("truncate", True),
        )


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """One checkpoint's architecture. Dimensions are counts of elements; names are the checkpoint's own."""

    model_type: str
    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    first_k_dense_replace: int
    num_attention_heads: int
    q_lora_rank: int | None
    kv_lora_rank: int
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int
    n_routed_experts: int
    n_shared_experts: int
    num_experts_per_tok: int
    n_group: int
    topk_group: int
    scoring_func: ScoringFunc
    topk_method: TopkMethod
    norm_topk_prob: bool
    routed_scaling_factor: float
    moe_intermediate_size: int
    intermediate_size: int
    rope_theta: float
    rope_scaling: YarnConfig | None
    rms_norm_eps: float
    max_position_embeddings: int
    num_nextn_predict_layers: int
    tie_word_embeddings: bool
    bos_token_id: int | None
    eos_token_ids: tuple[int, ...]

    @property
    def qk_head_dim(self) -> int:
        """Width of one query or key head: the part without position and the rotated part."""
        return self.qk_nope_head_dim + self.qk_rope_head_dim

    def is_moe_layer(self, layer: int) -> bool:
        """Whether `layer` (the MTP modules included, which follow the main layers) routes to experts."""
        return layer >= self.first_k_dense_replace

    @classmethod
    def from_dir(cls, path: str | Path) -> ModelConfig:
        """Read `config.json` of the checkpoint folder `path`. Raises `ConfigError`."""
        data, source = read_config(path)
        return cls.from_dict(data, source=source)

    @classmethod
    def from_dict(cls, data: Mapping[str, object], *, source: str = "config") -> ModelConfig:
        """Parse the mapping of a `config.json`; a `ConfigError` names the field and what is expected."""
        fields = Fields(data, source)
        family = fields.choice("model_type", None, _FAMILIES)
        v2 = family == "deepseek_v2"
        _refuse_unsupported(fields)
        max_positions = fields.integer("max_position_embeddings", None, at_least=1, at_most=_POSITIONS_MAX)
        theta, yarn = _parse_rope(fields, max_position_embeddings=max_positions)
        config = cls(
            model_type=family,
            vocab_size=fields.integer("vocab_size", None, at_least=1),
            hidden_size=fields.integer("hidden_size", None, at_least=1),
            num_hidden_layers=fields.integer("num_hidden_layers", None, at_least=1, at_most=_LAYERS_MAX),
            first_k_dense_replace=fields.integer("first_k_dense_replace", None),
            num_attention_heads=fields.integer("num_attention_heads", None, at_least=1),
            q_lora_rank=fields.optional_integer("q_lora_rank", at_least=1),
            kv_lora_rank=fields.integer("kv_lora_rank", None, at_least=1),
            qk_nope_head_dim=fields.integer("qk_nope_head_dim", None, at_least=1),
            qk_rope_head_dim=fields.integer("qk_rope_head_dim", None, at_least=2),
            v_head_dim=fields.integer("v_head_dim", None, at_least=1),
            n_routed_experts=fields.integer("n_routed_experts", None, at_least=1),
            n_shared_experts=fields.integer("n_shared_experts", 0),
            num_experts_per_tok=fields.integer("num_experts_per_tok", None, at_least=1),
            n_group=fields.integer("n_group", 1, at_least=1),
            topk_group=fields.integer("topk_group", 1, at_least=1),
            scoring_func=cast(
                ScoringFunc,
                fields.choice("scoring_func", "softmax" if v2 else "sigmoid", ("softmax", "sigmoid")),
            ),
            topk_method=cast(
                TopkMethod,
                fields.choice("topk_method", "greedy" if v2 else "noaux_tc", _METHODS),
            ),
            norm_topk_prob=fields.flag("norm_topk_prob", not v2),
            routed_scaling_factor=fields.number("routed_scaling_factor", 1.0, above=0.0),
            moe_intermediate_size=fields.integer("moe_intermediate_size", None, at_least=1),
            intermediate_size=fields.integer("intermediate_size", None, at_least=1),
            rope_theta=theta,
            rope_scaling=yarn,
            rms_norm_eps=fields.number("rms_norm_eps", 1e-6, above=0.0),
            max_position_embeddings=max_positions,
            num_nextn_predict_layers=fields.integer("num_nextn_predict_layers", 0, at_most=_LAYERS_MAX),
            tie_word_embeddings=fields.flag("tie_word_embeddings", False),
            bos_token_id=fields.optional_integer("bos_token_id", at_least=0),
            eos_token_ids=fields.integers("eos_token_id"),
        )
        _check_consistent(config, source)
        return config


def _refuse_unsupported(fields: Fields) -> None:
    """Refuse what no DeepSeek checkpoint uses and the engine therefore does not compute."""
    fields.choice("hidden_act", "silu", ("silu",))
    if fields.flag("attention_bias", False):
        raise fields.error("attention_bias", "false: biased attention projections are not supported")
    if not fields.flag("rope_interleave", True):
        raise fields.error("rope_interleave", "true: the interleaved rotary layout of DeepSeek-V2 and V3")
    if fields.integer("moe_layer_freq", 1) != 1:
        raise fields.error("moe_layer_freq", "1: every layer after first_k_dense_replace routes")


def _parse_rope(fields: Fields, *, max_position_embeddings: int) -> tuple[float, YarnConfig | None]:
    """Theta and YaRN's settings (`None`: plain rotary) from either spelling."""
    scaling = fields.optional_section("rope_scaling") or fields.optional_section("rope_parameters")
    theta = fields.number("rope_theta", 10000.0, above=1.0)
    if scaling is None:
        return theta, None
    theta = scaling.number("rope_theta", theta, above=1.0)
    key = "rope_type" if scaling.has("rope_type") else "type"
    if scaling.choice(key, "default", ("default", "yarn")) == "default":
        return theta, None
    return theta, YarnConfig.from_fields(scaling, max_position_embeddings=max_position_embeddings)


def _check_consistent(config: ModelConfig, source: str) -> None:
    """Relations between fields, each said in the words of the configuration."""
    greedy = config.topk_method == "greedy"  # ignores groups, which then may say anything
    groups, kept = (1, 1) if greedy else (config.n_group, config.topk_group)
    per_group, rest = divmod(config.n_routed_experts, groups)
    scale = config.routed_scaling_factor
    score = "sigmoid" if config.topk_method == "noaux_tc" else "softmax"
    checks = [
        (config.qk_rope_head_dim % 2 == 0, "qk_rope_head_dim", "an even number: dimensions rotate in pairs"),
        (rest == 0, "n_group", f"a divisor of n_routed_experts = {config.n_routed_experts}"),
        (kept <= groups, "topk_group", f"at most n_group = {groups}"),
        (
            config.num_experts_per_tok <= per_group * kept,
            "num_experts_per_tok",
            f"at most the {per_group * kept} experts {'there are' if greedy else 'of topk_group groups'}",
        ),
        (
            config.model_type != "deepseek_v2" or not config.norm_topk_prob or scale == 1,
            "routed_scaling_factor",
            "1 with norm_topk_prob: published V2 code leaves the factor out then, other code does not",
        ),
        (config.scoring_func == score, "scoring_func", f"{score!r} with topk_method {config.topk_method!r}"),
        (
            config.topk_method != "noaux_tc" or per_group >= 2,
            "n_group",
            "at least two experts a group: a group's score is the sum of its best two",
        ),
    ]
    for holds, name, expected in checks:
        if not holds:
            raise ConfigError(f"{source}: {name}: expected {expected}, found {getattr(config, name)!r}")
