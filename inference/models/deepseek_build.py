"""Building a DeepSeek model from its checkpoint, layer by layer."""

from __future__ import annotations

import torch

from inference.layers.attention import AttentionShape, AttentionWeights, LatentAttention
from inference.layers.decoder_layer import DecoderLayer
from inference.layers.forms import Packing
from inference.layers.mlp import GatedMlp
from inference.layers.moe import MoeMlp
from inference.layers.rope import RopeTable, softmax_scale
from inference.models.checkpoint import Checkpoint
from inference.models.config import ModelConfig
from inference.models.deepseek import DeepseekModel
from inference.models.mtp import MtpModule
from inference.models.packed import PackedStore
from inference.models.reader import WeightReader
from moe_ops.linear import PackedMatrix
from moe_ops.router import RouterSpec

_KEEP_NOTHING = PackedStore(None)


def build(
    config: ModelConfig, checkpoint: Checkpoint, packing: Packing, store: PackedStore, mtp: bool
) -> DeepseekModel:
    """The model, with its first prediction module when `mtp` is wanted and there is one."""
    loader = DeepseekLoader(config, checkpoint, packing, store)
    return loader.model(mtp=mtp and config.num_nextn_predict_layers > 0)


class DeepseekLoader(WeightReader):
    """Reads the tensors of one checkpoint layer by layer.

    To hold only a part of each layer, give it the sizes of that part as `config` and a checkpoint that reads
    it, and override `_layer` (a whole decoder layer by its number) and `_expert_modules` (which modules make
    up a layer's stack of experts), as `inference.parallel.loading` does.
    """

    def __init__(
        self,
        config: ModelConfig,
        checkpoint: Checkpoint,
        packing: Packing,
        store: PackedStore = _KEEP_NOTHING,
    ) -> None:
        super().__init__(checkpoint, packing, store)
        self._config = config
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
        embedding = self.embedding()
        head = self.head(tied=config.tie_word_embeddings)
        return DeepseekModel(
            config=config,
            cached=self._shape.cached,
            turn_XR=torch.complex(rope.cos_TP, rope.sin_TP),
            embedding=embedding,
            layers=tuple(self._layer(index) for index in range(config.num_hidden_layers)),
            norm=self.weight("model.norm"),
            head=head,
            packing=self.packing,
            mtp=self._mtp(embedding, head) if mtp else None,
        )

    def _mtp(self, embedding: torch.Tensor, head: PackedMatrix) -> MtpModule:
        prefix = f"model.layers.{self._config.num_hidden_layers}"
        return MtpModule(
            embedding=embedding,
            embedding_norm=self.weight(f"{prefix}.enorm"),
            state_norm=self.weight(f"{prefix}.hnorm"),
            joint=self.matrix(f"{prefix}.eh_proj"),
            layer=self._layer(self._config.num_hidden_layers),
            norm=self.weight(f"{prefix}.shared_head.norm"),
            head=head,
            forms=self.packing.forms,
            eps=self._config.rms_norm_eps,
        )

    def _layer(self, index: int) -> DecoderLayer:
        prefix = f"model.layers.{index}"
        moe = self._config.is_moe_layer(index)
        return self.layer(
            prefix,
            attention=self._attention(f"{prefix}.self_attn"),
            mlp=self._moe(f"{prefix}.mlp", index) if moe else self._mlp(f"{prefix}.mlp"),
        )

    def _attention(self, prefix: str) -> LatentAttention:
        weights = self.store.piece(prefix, AttentionWeights, lambda: self._pack_attention(prefix))
        return LatentAttention(weights.on(self.packing.device), self._shape, self.packing.forms, name=prefix)

    def _pack_attention(self, prefix: str) -> AttentionWeights:
        low_rank = self._config.q_lora_rank is not None
        return AttentionWeights.pack(
            q=self.unpacked(f"{prefix}.q_a_proj" if low_rank else f"{prefix}.q_proj"),
            q_norm=self.unpacked(f"{prefix}.q_a_layernorm") if low_rank else None,
            q_b=self.unpacked(f"{prefix}.q_b_proj") if low_rank else None,
            kv_a=self.unpacked(f"{prefix}.kv_a_proj_with_mqa"),
            kv_norm=self.unpacked(f"{prefix}.kv_a_layernorm"),
            kv_b=self.unpacked(f"{prefix}.kv_b_proj"),
            o=self.unpacked(f"{prefix}.o_proj"),
            shape=self._shape,
            weight_format=self.packing.weights,
            activations=self.packing.activations,
        )

    def _mlp(self, prefix: str) -> GatedMlp:
        return GatedMlp(self.experts(prefix, [(prefix, 1)]), self.packing.forms, name=prefix)

    def _moe(self, prefix: str, index: int) -> MoeMlp:
        config = self._config
        biased = config.topk_method == "noaux_tc"
        bias = f"{prefix}.gate.e_score_correction_bias"
        return MoeMlp(
            router_ED=self.weight(f"{prefix}.gate"),
            bias_E=self.checkpoint.read(bias, torch.float32).to(self.packing.device) if biased else None,
            spec=self._router,
            experts=self.experts(prefix, self._expert_modules(prefix)),
            shared=config.n_shared_experts or 0,
            forms=self.packing.forms,
            name=prefix,
            layer=index - config.first_k_dense_replace,
        )

    def _expert_modules(self, prefix: str) -> list[tuple[str, int]]:
        """Routed experts, then the shared MLP as so many experts of their width."""
        config = self._config
        modules = [(f"{prefix}.experts.{expert}", 1) for expert in range(config.n_routed_experts)]
        shared = config.n_shared_experts
        return [*modules, (f"{prefix}.shared_experts", shared)] if shared else modules


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
