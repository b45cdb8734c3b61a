"""Token-level logits against transformers, on random checkpoints of every shape and on the model of this
project.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from inference.models import loader
from inference.models.config import ModelConfig
from inference.models.loader import load_model
from inference.models.random_checkpoint import TINY_V3, random_checkpoint_write

LogitsOf = Callable[..., list[torch.Tensor]]

NANO = Path(loader.__file__).parent / "nano"
YARN: Any = TINY_V3["rope_scaling"]
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
    "v3 with two mscales": {"rope_scaling": {**YARN, "mscale": 0.7, "mscale_all_dim": 1.3}},
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


@st.composite
def architectures(draw: st.DrawFn) -> dict[str, object]:
    """Small configurations of both families, with every switch that published ones differ in."""
    v2 = draw(st.booleans())
    groups = draw(st.sampled_from([1, 2, 4]))
    per_group = draw(st.integers(2, 5))
    kept = draw(st.integers(1, groups))
    heads = draw(st.sampled_from([1, 2, 4, 8]))
    step = 2 if v2 else 1  # transformers' V2 turns even places only
    method = draw(st.sampled_from(["greedy", "group_limited_greedy"])) if v2 else "noaux_tc"
    return {
        **TINY_V3,
        **(V2 if v2 else {}),
        "topk_method": method,
        "norm_topk_prob": False if v2 else draw(st.booleans()),
        "n_group": groups,
        "topk_group": kept,
        "n_routed_experts": groups * per_group,
        "num_experts_per_tok": draw(st.integers(1, min(4, kept * per_group))),
        "n_shared_experts": draw(st.integers(1, 2)),
        "routed_scaling_factor": draw(st.sampled_from([1.0, 2.5, 16.0])),
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "q_lora_rank": draw(st.sampled_from([None, 24])),
        "kv_lora_rank": step * draw(st.integers(4, 20)),
        "qk_nope_head_dim": step * draw(st.integers(2, 10)),
        "qk_rope_head_dim": 2 * draw(st.integers(2, 6)),
        "v_head_dim": draw(st.integers(4, 20)),
        "first_k_dense_replace": draw(st.integers(0, 3)),
        "rope_theta": draw(st.sampled_from([10000.0, 50000.0])),
        "rope_scaling": draw(st.sampled_from([None, YARN, {**YARN, "factor": 4.0, "beta_fast": 1}])),
    }


@st.composite
def splits(draw: st.DrawFn, length: int) -> list[int]:
    """Chunk lengths that sum to `length`."""
    cuts = sorted(draw(st.sets(st.integers(1, max(1, length - 1)), max_size=min(4, length - 1))))
    ends = [cut for cut in cuts if cut < length] + [length]
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]


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


@settings(max_examples=12, deadline=None, derandomize=True, phases=[Phase.explicit, Phase.generate])
@given(data=st.data())
def test_logits_of_random_architectures_equal_those_of_transformers(
    data: st.DataObject, logits_of: LogitsOf
) -> None:
    """fp32, to 1e-4 where logits are some units; every prompt goes past YaRN's original context."""
    config = data.draw(architectures())
    prompt = PROMPTS[0][: data.draw(st.integers(70, 150))]
    with TemporaryDirectory() as folder:
        random_checkpoint_write(path=Path(folder), config=config, seed=data.draw(st.integers(0, 99)))
        found = logits_of(load_model(Path(folder)), [prompt])[0]
        expected = peer_logits(Path(folder), prompt)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@given(data=st.data())
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_split_of_a_batch_gives_the_same(
    data: st.DataObject, tiny_dir: Path, logits_of: LogitsOf
) -> None:
    """Prompts alone and whole, or together in chunks: fp32, to 5e-5."""
    model = load_model(tiny_dir)
    prompts = data.draw(
        st.lists(st.lists(st.integers(0, 263), min_size=1, max_size=90), min_size=1, max_size=4)
    )
    chunks = [data.draw(splits(len(prompt))) for prompt in prompts]
    together = logits_of(model, prompts, chunks)
    for prompt, found in zip(prompts, together, strict=True):
        torch.testing.assert_close(found, logits_of(model, [prompt])[0], rtol=0, atol=5e-5)


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
    rough = logits_of(load_model(tiny_dir, weights="bfloat16"), [PROMPTS[2]])[0]
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
