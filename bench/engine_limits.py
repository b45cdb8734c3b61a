"""What this machine could do at best: bytes a step must read, multiplications it must make, and how fast.

A step can not be faster than reading once what it needs, nor than making its multiplications; the limit is
the larger of the two times. Products with weights run at the rate of the weights' format, those of attention
with what is cached at that of floats. Nothing else is counted: no norms, no softmax, no sampling.

Decoding may attend in two ways, and the faster one is the limit. Over latents (what is cached is small: one
latent and one rotated key for all heads; each head multiplies by the whole latent, for scores and for values)
or over every head's own keys and values (16 times the bytes for checkpoint M, a third of the products). Both
pass queries and values, or the new token's latent, through `kv_b_proj` once per token.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from inference.models.config import ModelConfig
from inference.models.names import expected_shapes
from moe_ops import native
from moe_ops.linear import FORMATS, WeightFormat, linear, pack_matrix

_FP32_BYTES = 4
# int8 and int4 have one scale for each group of inputs
_WEIGHT_BYTES: dict[WeightFormat, float] = {
    "float32": 4.0,
    "bfloat16": 2.0,
    "int8": 1 + 2 / 128,
    "int4": 0.5 + 2 / 32,
}
_RUNS = 12
_PEAK_ROUNDS = 5000


@dataclass(frozen=True, slots=True)
class Machine:
    """Rates measured in this run on all threads, best of several: bytes read per second, operations per
    second (a multiplication and its addition are two) with weights of the format, and of floats.
    """

    weights: WeightFormat
    read_bytes: float
    operations: float
    float_operations: float

    def decode_limit(self, config: ModelConfig, *, batch: int, context: int) -> float:
        """Tokens per second of a step in which `batch` sequences of `context` tokens decode."""
        weights = weight_operations(config, head=True) / self.operations
        width = _FP32_BYTES if self.weights == "float32" else 2
        seconds = []
        for numbers, pairs in _ways_to_attend(config):
            cached = config.num_hidden_layers * batch * context * numbers * width
            reading = (
                step_weight_bytes(config, batch=batch, weights=self.weights) + cached
            ) / self.read_bytes
            attending = 2 * config.num_hidden_layers * context * pairs / self.float_operations
            seconds.append(max(reading, batch * (weights + attending)))
        return batch / min(seconds)

    def prefill_limit(self, config: ModelConfig, *, length: int) -> float:
        """Tokens per second of reading a prompt of `length` tokens, whose last one only meets the head. Heads
        have their own keys and values, and a token sees half of the prompt on average.
        """
        pairs = config.num_attention_heads * (config.qk_head_dim + config.v_head_dim)
        attending = 2 * config.num_hidden_layers * (length / 2) * pairs / self.float_operations
        return 1 / (weight_operations(config, head=False) / self.operations + attending)


def machine_measure(weights: WeightFormat, *, size: float) -> Machine:
    """The rates with weights of a format; `size` bytes is what a step reads."""
    return Machine(weights, read_bandwidth(size), arithmetic(weights), arithmetic("float32"))


def step_bytes(config: ModelConfig, *, batch: int, context: int, weights: WeightFormat = "float32") -> float:
    """Weights of a step, each once, and the cached latents of all sequences.

    Routed experts count as many as `batch` tokens choose on average when all are equally popular. The
    embedding is a look-up of a few rows, the router is kept in fp32, latents in bf16 unless all is fp32.
    """
    cached = batch * context * cache_bytes_per_token(config, weights=weights)
    return step_weight_bytes(config, batch=batch, weights=weights) + cached


def step_weight_bytes(config: ModelConfig, *, batch: int, weights: WeightFormat) -> float:
    """The weights' part of `step_bytes`."""
    share = 1 - (1 - config.num_experts_per_tok / config.n_routed_experts) ** batch
    total = 0.0
    for name, count in _weights(config).items():
        width = _FP32_BYTES if name.endswith("mlp.gate.weight") else _WEIGHT_BYTES[weights]
        total += count * width * (share if ".experts." in name else 1.0)
    return total


def cache_bytes_per_token(config: ModelConfig, *, weights: WeightFormat) -> float:
    """The formula: latent and rotated key of every layer, in bf16 unless all is fp32."""
    width = _FP32_BYTES if weights == "float32" else 2
    return config.num_hidden_layers * (config.kv_lora_rank + config.qk_rope_head_dim) * width


def weight_operations(config: ModelConfig, *, head: bool) -> float:
    """Multiplications and additions of a token with its active weights. `head`: with the output head, too."""
    active = config.num_experts_per_tok / config.n_routed_experts
    return 2 * sum(
        size * (active if ".experts." in name else 1.0)
        for name, size in _weights(config).items()
        if head or not name.startswith("lm_head")
    )


def read_bandwidth(size: float) -> float:
    """Bytes per second at which a buffer of about `size` bytes is read, the best of several passes of the
    faster of two operations that do little else.
    """
    buffer = torch.ones(max(1, int(size) // _FP32_BYTES))
    return size / min(_best_s(lambda: buffer.dot(buffer)), _best_s(buffer.sum))


def arithmetic(weights: WeightFormat) -> float:
    """Operations per second when nothing has to be fetched: a loop in registers on all of torch's threads.

    Codes of 8 bits for integer weights, fp32 for the others, but bf16 for bf16 weights where the processor
    has such products. Where the loop is not compiled, the faster of a large fp32 product and ours with
    weights of the format.
    """
    if native.available():
        work = partial(torch.ops.tokenworks.peak, FORMATS.index(weights), _PEAK_ROUNDS)
        return float(work()) / _best_s(work, seconds=1.0)
    x_TI, matrix = torch.randn(512, 1024), pack_matrix(torch.randn(1024, 1024), weights)
    return max(2 * 512 * 1024**2 / _best_s(lambda: linear(x_TI, matrix)), matmul_speed())


def matmul_speed(width: int = 1024) -> float:
    """Operations per second of a square fp32 product."""
    a, b = torch.randn(width, width), torch.randn(width, width)
    return 2 * width**3 / _best_s(lambda: a @ b)


def _ways_to_attend(config: ModelConfig) -> tuple[tuple[float, float], tuple[float, float]]:
    """Numbers cached per token and layer, and products of a new token with each cached one: over latents, and
    over the heads' own keys and values.
    """
    heads, rotary = config.num_attention_heads, config.qk_rope_head_dim
    latents = config.kv_lora_rank + rotary, heads * (2 * config.kv_lora_rank + rotary)
    own = heads * (config.qk_head_dim + config.v_head_dim)
    return latents, (own, own)


def _weights(config: ModelConfig) -> dict[str, int]:
    """Numbers in each matrix that a forward pass multiplies by."""
    sizes = {name: torch.Size(shape).numel() for name, shape in expected_shapes(config).items()}
    if config.tie_word_embeddings:
        sizes["lm_head.weight"] = sizes["model.embed_tokens.weight"]
    del sizes["model.embed_tokens.weight"]
    return sizes


def _best_s(work: Callable[[], object], *, seconds: float = 0.0) -> float:
    """Seconds of the fastest of a dozen runs, or of more until `seconds` are over: clocks rise and threads
    find processors of their own in the first tenths of a second.
    """
    began = time.perf_counter()
    times: list[float] = []
    while len(times) < _RUNS or time.perf_counter() - began < seconds:
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)
