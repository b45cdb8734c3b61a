"""Token-level logits against transformers, on random checkpoints of every shape and on the model of this
project.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from inference.models import loader
from inference.models.config import ModelConfig
from inference.models.loader import load_model
from inference.models.random_checkpoint import TINY_V3, random_checkpoint_write

LogitsOf = Callable[..., list[torch.Tensor]]

NANO = Path(loader.__file__).parent / "nano"
YARN = TINY_V3["rope_scaling"]
V2 = {
    "architectures": ["DeepseekV2ForCausalLM"],
    "model_type": "deepseek_v2",
    "scoring_func": "softmax",
    "topk_method": "greedy",
    "norm_topk_prob": False,
    "routed_scaling_factor": 1.0,
    "n_group": 1,
    "topk_group": 1,
}
VARIANTS: dict[str, dict[str, object]] = {
    "v3": {},
    "v3 without low-rank queries": {"q_lora_rank": None},
    "v3 with one group, weights as they are": {"n_group": 1, "topk_group": 1, "norm_topk_prob": False},
    "v3 with plain rope, tied": {"rope_scaling": None, "tie_word_embeddings": True},
    "v3 with two mscales": {"rope_scaling": {**YARN, "mscale": 0.7, "mscale_all_dim": 1.3}},  # type: ignore[dict-item]
    "v3 with odd widths": {"v_head_dim": 9, "moe_intermediate_size": 18, "kv_lora_rank": 15},
    "v3 with a wide latent": {"kv_lora_rank": 96, "qk_nope_head_dim": 8, "v_head_dim": 8},
    "v3 with another epsilon": {"rms_norm_eps": 1e-2},
    "v2 greedy": {**V2, "q_lora_rank": None, "n_shared_experts": 2},
    "v2 by groups": {
        **V2,
        "topk_method": "group_limited_greedy",
        "n_group": 4,
        "topk_group": 2,
        "routed_scaling_factor": 16.0,
    },
}
PROMPTS = [
    [(7 * i * i + 3 * i) % 250 + 8 for i in range(n)] for n in (150, 1, 37)
]  # 64 is the original context


def peer_logits(path: Path, prompt: list[int]) -> torch.Tensor:
    from transformers import AutoModelForCausalLM

    peer: Any = AutoModelForCausalLM.from_pretrained(
        path, dtype=torch.float32, attn_implementation="eager", experts_implementation="eager"
    )
    with torch.inference_mode():
        logits: torch.Tensor = peer.eval()(torch.tensor([prompt])).logits[0]
    return logits


@pytest.fixture(params=VARIANTS)
def variant_dir(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    random_checkpoint_write(path=tmp_path, config={**TINY_V3, **VARIANTS[request.param]})
    return tmp_path


def test_logits_equal_those_of_transformers(variant_dir: Path, logits_of: LogitsOf) -> None:
    model = load_model(variant_dir)
    expected = peer_logits(variant_dir, PROMPTS[0])
    whole = logits_of(model, PROMPTS)[0]
    torch.testing.assert_close(whole, expected, rtol=0, atol=5e-5)
    assert expected.abs().max() > 1  # the comparison means something


def test_chunked_and_batched_equal_whole_and_alone(variant_dir: Path, logits_of: LogitsOf) -> None:
    model = load_model(variant_dir)
    alone = [logits_of(model, [prompt])[0] for prompt in PROMPTS]
    chunks = [[64, 1, 1, 50, 34], [1], [5, 1, 30, 1]]
    for found, expected in zip(logits_of(model, PROMPTS, chunks), alone, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=5e-5)


def test_token_by_token_equals_whole(tiny_dir: Path, logits_of: LogitsOf) -> None:
    model = load_model(tiny_dir)
    prompt = PROMPTS[0][:40]
    found = logits_of(model, [prompt], [[1] * len(prompt)])[0]
    torch.testing.assert_close(found, logits_of(model, [prompt])[0], rtol=0, atol=5e-5)


def test_bf16_is_near_fp32(tiny_dir: Path, logits_of: LogitsOf) -> None:
    exact = logits_of(load_model(tiny_dir), [PROMPTS[2]])[0]
    rough = logits_of(load_model(tiny_dir, dtype=torch.bfloat16), [PROMPTS[2]])[0]
    assert rough.dtype == torch.float32
    # Rounded scores flip a few choices of experts, so single tokens may differ more than the rest.
    assert (rough - exact).abs().median() < 0.05


def test_nano_equals_transformers(logits_of: LogitsOf) -> None:
    """Over its whole context, in fp32."""
    config = ModelConfig.from_dir(NANO)
    generator = torch.Generator().manual_seed(5)
    length = min(config.max_position_embeddings, 1500)
    prompt = torch.randint(config.vocab_size, (length,), generator=generator).tolist()
    half = length // 2
    found = logits_of(load_model(NANO), [prompt], [[half, 1, length - half - 1]])[0]
    torch.testing.assert_close(found, peer_logits(NANO, prompt), rtol=0, atol=1e-3)
