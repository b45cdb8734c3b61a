"""What nano is (its architecture) and how it is trained (rates, batch, stages), in one place."""

from __future__ import annotations

from dataclasses import dataclass

VOCABULARY = 4096
"""Entries of the tokenizer, special tokens included."""


def nano_architecture(*, vocab_size: int = VOCABULARY) -> dict[str, object]:
    """nano's `config.json`: DeepSeek-V3's architecture in small."""
    return {
        "architectures": ["DeepseekV3ForCausalLM"],
        "model_type": "deepseek_v3",
        "dtype": "bfloat16",
        "vocab_size": vocab_size,
        "hidden_size": 192,
        "intermediate_size": 512,
        "moe_intermediate_size": 64,
        "num_hidden_layers": 5,
        "first_k_dense_replace": 1,
        "num_nextn_predict_layers": 1,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "q_lora_rank": 96,
        "kv_lora_rank": 64,
        "qk_nope_head_dim": 32,
        "qk_rope_head_dim": 16,
        "v_head_dim": 48,
        "n_routed_experts": 16,
        "n_shared_experts": 1,
        "num_experts_per_tok": 4,
        "n_group": 4,
        "topk_group": 2,
        "scoring_func": "sigmoid",
        "topk_method": "noaux_tc",
        "norm_topk_prob": True,
        "routed_scaling_factor": 2.0,
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "rope_interleave": True,
        "rope_scaling": {
            "type": "yarn",
            "factor": 4.0,
            "original_max_position_embeddings": 1024,
            "beta_fast": 32,
            "beta_slow": 1,
            "mscale": 1.0,
            "mscale_all_dim": 1.0,
        },
        "max_position_embeddings": 4096,
        "tie_word_embeddings": False,
        "use_cache": True,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 2,
    }


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """One stage of training; rates are per optimiser step, `progress` runs from 0 to 1 over the stage."""

    seed: int = 1
    row_tokens: int = 256
    long_row_tokens: int = 1024
    long_from_progress: float = 0.75
    batch_tokens: int = 4096
    muon_lr: float = 0.025
    adam_lr: float = 0.006
    weight_decay: float = 0.05
    warmup_steps: int = 30
    decay_from_progress: float = 0.4
    final_lr_fraction: float = 0.1
    gradient_norm_max: float = 1.0
    bias_step: float = 0.003
    mtp_weight: float = 0.3
    fim_rate: float = 0.5
    pair_share: float = 0.0
    """Share of question/answer pairs in the tokens of epochs of long rows."""


PRETRAIN = TrainSettings(pair_share=0.3)
CHAT = TrainSettings(
    row_tokens=512,
    long_row_tokens=512,
    long_from_progress=0.0,
    muon_lr=0.012,
    adam_lr=0.003,
    warmup_steps=10,
    decay_from_progress=0.1,
    final_lr_fraction=0.02,
    bias_step=0.003,
    pair_share=0.75,
)
