"""What this machine could do at best: bytes a decode step must read, operations a prompt must cost."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from inference.models.config import ModelConfig
from inference.models.names import expected_shapes

_FP32_BYTES = 4


def decode_limit(config: ModelConfig, *, batch: int, context: int) -> float:
    """Tokens per second if a step took the time of reading its bytes once and nothing else."""
    size = step_bytes(config, batch=batch, context=context)
    return batch * read_bandwidth(size) / size


def prefill_limit(config: ModelConfig, *, length: int) -> float:
    """Tokens per second if all the multiplications of a prompt ran at the speed of a large matrix product."""
    return matmul_speed() / prefill_flops_per_token(config, length=length)


def step_bytes(config: ModelConfig, *, batch: int, context: int) -> float:
    """Weights of a step, each once, in fp32, and the cached latents of all sequences.

    Routed experts count as many as `batch` tokens choose on average when all are equally popular. The
    embedding is a look-up of a few rows.
    """
    share = 1 - (1 - config.num_experts_per_tok / config.n_routed_experts) ** batch
    weights = sum(size * (share if ".experts." in name else 1.0) for name, size in _weights(config).items())
    latents = batch * context * config.num_hidden_layers * (config.kv_lora_rank + config.qk_rope_head_dim)
    return _FP32_BYTES * (weights + latents)


def prefill_flops_per_token(config: ModelConfig, *, length: int) -> float:
    """Multiplications and additions per prompt token: active weights and expanded causal attention.

    The head works for the last token only.
    """
    active = config.num_experts_per_tok / config.n_routed_experts
    weights = sum(
        size * (active if ".experts." in name else 1.0)
        for name, size in _weights(config).items()
        if not name.startswith("lm_head")
    )
    pairs = length / 2 * config.num_attention_heads * (config.qk_head_dim + config.v_head_dim)
    return 2 * (weights + config.num_hidden_layers * pairs)


def read_bandwidth(size: float) -> float:
    """Bytes per second at which a buffer of about `size` bytes is read, the best of several passes."""
    buffer = torch.ones(max(1, int(size) // _FP32_BYTES))
    return size / _best_s(lambda: buffer.dot(buffer))


def matmul_speed(width: int = 1024) -> float:
    """Operations per second of a square fp32 product."""
    a, b = torch.randn(width, width), torch.randn(width, width)
    return 2 * width**3 / _best_s(lambda: a @ b)


def _weights(config: ModelConfig) -> dict[str, int]:
    """Numbers in each matrix that a forward pass multiplies by."""
    sizes = {name: torch.Size(shape).numel() for name, shape in expected_shapes(config).items()}
    if config.tie_word_embeddings:
        sizes["lm_head.weight"] = sizes["model.embed_tokens.weight"]
    del sizes["model.embed_tokens.weight"]
    return sizes


def _best_s(work: Callable[[], object]) -> float:
    """Seconds of the fastest of a dozen runs."""
    times = []
    for _ in range(12):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)
