"""The worked example of another architecture: exact against transformers, and served by the whole engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from inference.engine import EngineConfig, GenerationRequest, SamplingParams
from inference.engine.loading import engine_load
from inference.models.fields import ConfigError
from inference.models.loader import load_model
from inference.models.random_checkpoint import random_checkpoint_write
from moe_ops.linear import WeightFormat

LogitsOf = Callable[..., list[torch.Tensor]]

QWEN: dict[str, Any] = {
    "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "vocab_size": 264,
    "hidden_size": 64,
    "intermediate_size": 96, "moe_intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 6,
    "num_key_value_heads": 2, "head_dim": 16, "num_experts": 8, "num_experts_per_tok": 3,
    "norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": [], "rope_theta": 1000000.0,
    "rope_scaling": None, "rms_norm_eps": 1e-6, "max_position_embeddings": 512, "hidden_act": "silu",
    "attention_bias": False, "use_sliding_window": False, "sliding_window": None,
    "tie_word_embeddings": False, "bos_token_id": 0, "eos_token_id": 1,
}  # fmt: skip
VARIANTS: dict[str, dict[str, Any]] = {
    "published": {},
    "weights as they are, tied": {"norm_topk_prob": False, "tie_word_embeddings": True},
    "one group": {"num_key_value_heads": 6},
    "one key head, another theta": {"num_key_value_heads": 1, "head_dim": 20, "rope_theta": 10000.0},
}
PROMPTS = [[(7 * i * i + 3 * i) % 250 + 8 for i in range(n)] for n in (130, 1, 37)]


@pytest.fixture(scope="module")
def qwen_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("qwen")
    random_checkpoint_write(path=path, config=QWEN, shards=2)
    return path


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_equal_those_of_transformers(variant: str, tmp_path: Path, logits_of: LogitsOf) -> None:
    """fp32, to 5e-5; in chunks, and beside other prompts."""
    from transformers import AutoModelForCausalLM

    random_checkpoint_write(path=tmp_path, config={**QWEN, **VARIANTS[variant]})
    peer: Any = AutoModelForCausalLM.from_pretrained(
        tmp_path, dtype=torch.float32, attn_implementation="eager", experts_implementation="eager"
    )
    model = load_model(tmp_path)
    whole = logits_of(model, PROMPTS)
    chunked = logits_of(model, PROMPTS, [[64, 1, 1, 50, 14], [1], [5, 1, 30, 1]])
    for prompt, first, second in zip(PROMPTS, whole, chunked, strict=True):
        with torch.inference_mode():
            expected = peer.eval()(torch.tensor([prompt])).logits[0]
        torch.testing.assert_close(first, expected, rtol=0, atol=5e-5)
        torch.testing.assert_close(second, expected, rtol=0, atol=5e-5)
        assert expected.abs().max() > 1


@pytest.mark.parametrize("weights", ["bfloat16", "int8"])
def test_packed_weights_and_their_cache(
    qwen_dir: Path, tmp_path: Path, weights: WeightFormat, logits_of: LogitsOf
) -> None:
    exact = logits_of(load_model(qwen_dir), [PROMPTS[2]])[0]
    fresh = logits_of(load_model(qwen_dir, weights=weights, cache_dir=tmp_path), [PROMPTS[2]])[0]
    cached = logits_of(load_model(qwen_dir, weights=weights, cache_dir=tmp_path), [PROMPTS[2]])[0]
    assert cached.equal(fresh)
    assert (fresh - exact).abs().median() < 0.1


def test_the_engine_serves_it(qwen_dir: Path, logits_of: LogitsOf) -> None:
    """Chunked prefill, continuous batching and the prefix cache give what the whole prompt gives alone."""
    config = EngineConfig(page_size=4, pages=80, max_running=3, step_token_budget=16)
    engine = engine_load(qwen_dir, config).engine
    shared = PROMPTS[0][:40]
    prompts = [(*shared, *tail) for tail in ([9, 10, 11], [12], [13, 14, 15, 16, 17])]
    greedy = SamplingParams(max_tokens=8, temperature=0.0, ignore_eos=True)
    found: dict[str, list[int]] = {}
    cached: dict[str, int] = {}
    engine.submit(GenerationRequest("first", prompts[0], greedy))
    waiting = [GenerationRequest(f"r{place}", prompt, greedy) for place, prompt in enumerate(prompts)]
    while engine.has_work or waiting:
        if waiting and not engine.has_work:
            for request in waiting:
                engine.submit(request)
            waiting = []
        for event in engine.step():
            found.setdefault(event.request_id, []).extend(event.token_ids)
            cached[event.request_id] = event.cached_tokens
    model = load_model(qwen_dir)
    for place, prompt in enumerate(prompts):
        tokens = list(prompt)
        for _ in range(8):
            tokens.append(int(logits_of(model, [tokens])[0][-1].argmax()))
        assert found[f"r{place}"] == tokens[len(prompt) :]
        assert cached[f"r{place}"] >= 36
    assert found["first"] == found["r0"]
    assert cached["first"] == 0


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"num_key_value_heads": 4}, "num_key_value_heads: expected a divisor"),
        ({"num_experts_per_tok": 9}, "num_experts_per_tok: expected fewer"),
        ({"mlp_only_layers": [0]}, "mlp_only_layers: expected no dense layers"),
        ({"use_sliding_window": True}, "use_sliding_window: expected false"),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, "type: expected one of 'default'"),
        ({"head_dim": None}, "head_dim: expected an integer"),
    ],
)
def test_what_is_not_computed_is_refused(
    qwen_dir: Path, tmp_path: Path, change: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        random_checkpoint_write(path=tmp_path, config={**QWEN, **change})
