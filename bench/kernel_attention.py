"""Latent attention: storing new tokens, decoding over the paged cache, reading many new tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice

import torch

from bench.kernel_case import Case, Work, matrix_copy, turns
from inference.models.config import ModelConfig
from moe_ops.latent_attention import (
    LatentHeads,
    PagedRows,
    cpu,
    cpu_expand,
    latent_decode_,
    latent_expand_,
    pack_latent_heads,
)
from moe_ops.latent_store import latent_store_
from moe_ops.latent_store import reference as store_reference
from moe_ops.linear import WeightFormat
from moe_ops.linear.cpu import unpacked

_PAGE = 16
_PEERS = 8  # copies that plain torch takes in turn, whose unpacked weights are larger


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer's weights and cache."""

    heads: LatentHeads
    cache_PZC: torch.Tensor

    def copy(self) -> Layer:
        """The same in other memory."""
        key, kv_b = (matrix_copy(matrix) for matrix in (self.heads.key, self.heads.kv_b))
        return Layer(LatentHeads(kv_b, key), self.cache_PZC.clone())


def attention_cases(
    config: ModelConfig,
    weights: WeightFormat,
    *,
    decode: Sequence[tuple[int, int]],
    expand: Sequence[tuple[int, int]],
    store: Sequence[int],
) -> Iterator[Case]:
    """`decode`: batch and context; `expand`: new tokens and context before them; `store`: new tokens."""
    width = config.qk_nope_head_dim + config.v_head_dim
    kv_b_HUL = torch.randn(config.num_attention_heads, width, config.kv_lora_rank) / config.kv_lora_rank**0.5
    heads = pack_latent_heads(kv_b_HUL, nope=config.qk_nope_head_dim, weight_format=weights)
    for tokens in store:
        yield _store(config, weights, tokens)
    for batch, context in decode:
        yield _decode(config, heads, batch, context)
    for tokens, start in expand:
        yield _expand(config, heads, tokens, start)


def _store(config: ModelConfig, weights: WeightFormat, tokens: int) -> Case:
    latent, rotary, heads = config.kv_lora_rank, config.qk_rope_head_dim, config.num_attention_heads
    fresh_TC, norm_L = torch.randn(tokens, latent + rotary), torch.ones(latent)
    turn_TR = torch.polar(torch.ones(tokens, rotary // 2), torch.rand(tokens, rotary // 2))
    cache_PZC, slot_T = _cache(config, weights, _pages(tokens)), torch.randperm(tokens)
    q_THQ = torch.randn(tokens, heads, config.qk_head_dim)

    def stored(operation: Callable[..., None]) -> Work:
        written_PZC, own_THQ = torch.zeros_like(cache_PZC), q_THQ.clone()

        def work() -> tuple[torch.Tensor, ...]:
            operation(
                fresh_TC, norm_L, config.rms_norm_eps,
                turn_TR=turn_TR, slot_T=slot_T, cache_PZC=written_PZC, q_THQ=own_THQ,
            )  # fmt: skip
            return written_PZC, own_THQ

        return work

    turned = 2 * heads * rotary * q_THQ.element_size() + turn_TR[0].nbytes
    return Case(
        f"norm, RoPE and latent store, {tokens} tokens, in cache",
        stored(latent_store_),
        stored(store_reference.latent_store_),
        cached=tokens * (fresh_TC[0].nbytes + cache_PZC[0, 0].nbytes + turned),
        operations=tokens * (4 * latent + 3 * rotary * (1 + heads)),
    )


def _decode(config: ModelConfig, heads: LatentHeads, batch: int, context: int) -> Case:
    columns = _pages(context)
    layer = Layer(heads, _cache(config, heads.kv_b.format, batch * columns))
    pages = torch.randperm(batch * columns).view(batch, columns).tolist()
    rows = PagedRows.build(pages=pages, counts=[1] * batch, ends=[context] * batch, page_size=_PAGE)
    seen = context * (2 * config.kv_lora_rank + config.qk_rope_head_dim)
    passed = config.kv_lora_rank * (config.qk_nope_head_dim + config.v_head_dim)
    read = _decode_bytes(heads) + batch * context * layer.cache_PZC[0, 0].nbytes

    work, ours = partial(_attention, config, batch, (rows,)), turns(layer.copy, read)
    return Case(
        f"decode attention, batch {batch} × {context}",
        work(latent_decode_, ours),
        work(cpu.latent_decode_, _plain(ours)),
        read=read,
        operations=2 * batch * config.num_attention_heads * seen,
        products=2 * batch * config.num_attention_heads * passed,
        weights=heads.kv_b.format,
    )


def _expand(config: ModelConfig, heads: LatentHeads, tokens: int, start: int) -> Case:
    end = start + tokens
    layer = Layer(heads, _cache(config, heads.kv_b.format, _pages(end)))
    pages_P = torch.randperm(_pages(end)).int()
    read = heads.kv_b.nbytes + end * layer.cache_PZC[0, 0].nbytes
    pairs = tokens * (start + (tokens + 1) / 2)  # of a new token and one that it sees

    work, ours = partial(_attention, config, tokens, (pages_P, start)), turns(layer.copy, read)
    return Case(
        f"attention of {tokens} new tokens after {start}",
        work(latent_expand_, ours),
        work(cpu_expand.latent_expand_, _plain(ours)),
        read=read,
        operations=2 * config.num_attention_heads * pairs * (config.qk_head_dim + config.v_head_dim),
        products=2 * end * heads.kv_b.outputs * heads.kv_b.inputs,
        weights=heads.kv_b.format,
    )


def _plain(layers: Iterator[Layer]) -> Iterator[Layer]:
    """A few of them for plain torch, unpacked before anything is timed."""
    few, fp32 = list(islice(layers, _PEERS)), torch.empty(0)
    for layer in few:
        unpacked(layer.heads.key, like=fp32)
        unpacked(layer.heads.kv_b, like=fp32)
    return cycle(few)


def _decode_bytes(heads: LatentHeads) -> float:
    """The keys' half, turned, and the values' half of `kv_b`."""
    return heads.key.nbytes + heads.kv_b.nbytes * heads.value / (heads.nope + heads.value)


def _attention(
    config: ModelConfig,
    tokens: int,
    where: tuple[object, ...],
    operation: Callable[..., None],
    layers: Iterator[Layer],
) -> Work:
    """The operation on random queries, each time with the next layer."""
    heads, scale = config.num_attention_heads, config.qk_head_dim**-0.5
    generator = torch.Generator().manual_seed(0)
    q_THQ = torch.randn(tokens, heads, config.qk_head_dim, generator=generator)
    out_THV = torch.empty(tokens, heads, config.v_head_dim)

    def work() -> tuple[torch.Tensor, ...]:
        layer = next(layers)
        operation(out_THV, q_THQ, layer.cache_PZC, *where, heads=layer.heads, scale=scale)
        return (out_THV,)

    return work


def _cache(config: ModelConfig, weights: WeightFormat, pages: int) -> torch.Tensor:
    cache_PZC = torch.randn(pages, _PAGE, config.kv_lora_rank + config.qk_rope_head_dim)
    return cache_PZC if weights == "float32" else cache_PZC.bfloat16()


def _pages(positions: int) -> int:
    return -(-positions // _PAGE)
