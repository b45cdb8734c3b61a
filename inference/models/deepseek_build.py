"""Building a DeepSeek model from its checkpoint, layer by layer."""

from __future__ import annotations

import torch

from inference.layers.attention import AttentionShape, AttentionWeights, LatentAttention
from inference.layers.forms import Packing
from inference.layers.mlp import GatedMlp
from inference.layers.moe import MoeMlp
from inference.layers.rope import RopeTable, softmax_scale
from inference.models.checkpoint import Checkpoint
from inference.models.config import ModelConfig
from inference.models.decoder import DecoderLayer
from inference.models.deepseek import DeepseekModel
from inference.models.mtp import MtpModule
from inference.models.packed import PackedStore
from moe_ops.grouped_mlp import PackedExperts, pack_experts, split_mlp, stack_experts
from moe_ops.linear import PackedMatrix, pack_matrix
from moe_ops.router import RouterSpec

_KEEP_NOTHING = PackedStore(None)


def build(
    config: ModelConfig, checkpoint: Checkpoint, packing: Packing, store: PackedStore, mtp: bool
) -> DeepseekModel:
    """The model, with its first prediction module when `mtp` is wanted and there is one."""
    loader = _Loader(config, checkpoint, packing, store)
    return loader.model(mtp=mtp and config.num_nextn_predict_layers > 0)


class _Loader:
    """Reads the tensors of one checkpoint layer by layer."""

    def __init__(
        self,
        config: ModelConfig,
        checkpoint: Checkpoint,
        packing: Packing,
        store: PackedStore = _KEEP_NOTHING,
    ) -> None:
        self._config = config
        self._store = store
        self._checkpoint = checkpoint
        self._packing = packing
        self._format = packing.weights
        self._shape = AttentionShape(
            heads=config.num_attention_heads,
            nope=config.qk_nope_head_dim,
            rotary=config.qk_rope_head_dim,
            value=config.v_head_dim,
            latent=config.kv_lora_rank,
            scale=softmax_scale(config),
        )
        self._router = router_spec(config)

    def model(self, *, mtp: bool) -> DeepseekModel:
        config = self._config
        rope = RopeTable.build(config)
        embedding = self._checkpoint.map("model.embed_tokens.weight", self._packing.kept)
        head = self._matrix("model.embed_tokens" if config.tie_word_embeddings else "lm_head")
        return DeepseekModel(
            config=config,
            shape=self._shape,
            turn_XR=torch.complex(rope.cos_TP, rope.sin_TP),
            embedding=embedding,
            layers=tuple(self._layer(index) for index in range(config.num_hidden_layers)),
            norm=self._weight("model.norm"),
            head=head,
            forms=self._packing.forms,
            mtp=self._mtp(embedding, head) if mtp else None,
        )

    def _mtp(self, embedding: torch.Tensor, head: PackedMatrix) -> MtpModule:
        prefix = f"model.layers.{self._config.num_hidden_layers}"
        return MtpModule(
            embedding=embedding,
            embedding_norm=self._weight(f"{prefix}.enorm"),
            state_norm=self._weight(f"{prefix}.hnorm"),
            joint=self._matrix(f"{prefix}.eh_proj"),
            layer=self._layer(self._config.num_hidden_layers),
            norm=self._weight(f"{prefix}.shared_head.norm"),
            head=head,
            forms=self._packing.forms,
            eps=self._config.rms_norm_eps,
        )

    def _layer(self, index: int) -> DecoderLayer:
        prefix = f"model.layers.{index}"
        moe = self._config.is_moe_layer(index)
        return DecoderLayer(
            attention_norm=self._weight(f"{prefix}.input_layernorm"),
            attention=self._attention(f"{prefix}.self_attn"),
            mlp_norm=self._weight(f"{prefix}.post_attention_layernorm"),
            mlp=self._moe(f"{prefix}.mlp", index) if moe else self._mlp(f"{prefix}.mlp"),
            forms=self._packing.forms,
        )

    def _attention(self, prefix: str) -> LatentAttention:
        weights = self._store.piece(prefix, AttentionWeights, lambda: self._pack_attention(prefix))
        return LatentAttention(weights, self._shape, self._packing.forms, name=prefix)

    def _pack_attention(self, prefix: str) -> AttentionWeights:
        low_rank = self._config.q_lora_rank is not None
        return AttentionWeights.pack(
            q=self._weight(f"{prefix}.q_a_proj" if low_rank else f"{prefix}.q_proj"),
            q_norm=self._weight(f"{prefix}.q_a_layernorm") if low_rank else None,
            q_b=self._weight(f"{prefix}.q_b_proj") if low_rank else None,
            kv_a=self._weight(f"{prefix}.kv_a_proj_with_mqa"),
            kv_norm=self._weight(f"{prefix}.kv_a_layernorm"),
            kv_b=self._weight(f"{prefix}.kv_b_proj"),
            o=self._weight(f"{prefix}.o_proj"),
            shape=self._shape,
            weight_format=self._format,
        )

    def _mlp(self, prefix: str) -> GatedMlp:
        experts = self._store.piece(prefix, PackedExperts, lambda: self._pack_mlp(prefix, 1))
        return GatedMlp(experts, self._packing.forms, name=prefix)

    def _moe(self, prefix: str, index: int) -> MoeMlp:
        config = self._config
        biased = config.topk_method == "noaux_tc"
        bias = f"{prefix}.gate.e_score_correction_bias"
        return MoeMlp(
            router_ED=self._checkpoint.read(f"{prefix}.gate.weight", torch.float32),
            bias_E=self._checkpoint.read(bias, torch.float32) if biased else None,
            spec=self._router,
            experts=self._store.piece(prefix, PackedExperts, lambda: self._pack_experts(prefix)),
            shared=config.n_shared_experts or 0,
            forms=self._packing.forms,
            name=prefix,
            layer=index - config.first_k_dense_replace,
        )

    def _pack_experts(self, prefix: str) -> PackedExperts:
        """Routed experts, then the shared MLP as so many experts of their width."""
        config = self._config
        parts = [self._pack_mlp(f"{prefix}.experts.{expert}", 1) for expert in range(config.n_routed_experts)]
        if config.n_shared_experts:
            parts.append(self._pack_mlp(f"{prefix}.shared_experts", config.n_shared_experts))
        return stack_experts(parts)

    def _pack_mlp(self, prefix: str, count: int) -> PackedExperts:
        """The gated MLP `prefix` as `count` experts of equal width."""
        gate, up, down = (self._weight(f"{prefix}.{part}_proj") for part in ("gate", "up", "down"))
        return pack_experts(*split_mlp(gate, up, down, count), self._format)

    def _matrix(self, name: str) -> PackedMatrix:
        return self._store.piece(name, PackedMatrix, lambda: pack_matrix(self._weight(name), self._format))

    def _weight(self, name: str) -> torch.Tensor:
        return self._checkpoint.read(f"{name}.weight", torch.float32)


def router_spec(config: ModelConfig) -> RouterSpec:
    """How the checkpoint routes; greedy V2 models ignore groups."""
    grouped = config.topk_method != "greedy"
    return RouterSpec(
        top_k=config.num_experts_per_tok,
        groups=config.n_group if grouped else 1,
        groups_kept=config.topk_group if grouped else 1,
        scoring=config.scoring_func,
        normalize=config.norm_topk_prob,
        scale=config.routed_scaling_factor,
    )
