"""A tokenizer and an architecture small enough to train in a test."""

from __future__ import annotations

import pytest
import torch
from tokenizers import Tokenizer

from inference.models.config import ModelConfig
from inference.train.network import Network
from inference.train.settings import nano_architecture
from inference.train.vocabulary import tokenizer_train

CODE = "def area(width, height):\n    return width * height\n\n\nclass Box:\n    side = 3\n"


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return tokenizer_train(texts=[CODE * 20], vocab_size=320)


@pytest.fixture
def tiny_architecture(tokenizer: Tokenizer) -> dict[str, object]:
    """DeepSeek-V3 with every feature on: groups, bias, YaRN past 64 positions, compressed queries."""
    changes: dict[str, object] = {
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "q_lora_rank": 16,
        "kv_lora_rank": 16,
        "qk_nope_head_dim": 8,
        "qk_rope_head_dim": 8,
        "v_head_dim": 16,
        "intermediate_size": 48,
        "moe_intermediate_size": 16,
        "n_routed_experts": 8,
        "num_experts_per_tok": 2,
        "max_position_embeddings": 256,
        "rope_scaling": {
            "type": "yarn",
            "factor": 4.0,
            "original_max_position_embeddings": 64,
            "beta_fast": 32,
            "beta_slow": 1,
            "mscale": 1.0,
            "mscale_all_dim": 1.0,
        },
    }
    return nano_architecture(vocab_size=tokenizer.get_vocab_size()) | changes


@pytest.fixture
def tiny_network(tiny_architecture: dict[str, object]) -> Network:
    """Random weights with decisive routers and biases that matter."""
    torch.manual_seed(3)
    network = Network(ModelConfig.from_dict(tiny_architecture)).eval()
    for router in network.routers():
        torch.nn.init.normal_(router.weight, std=0.5)
        torch.nn.init.normal_(router.e_score_correction_bias, std=0.2)
    return network
