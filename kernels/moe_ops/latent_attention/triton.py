"""Absorbed attention over the paged latents, split over heads and chunks of context.

A program takes some heads of one token through one chunk, and there are no others; what the chunks found is
then merged by their softmax sums. Chunks have one size whatever the batch, so a token's result does not
depend on the others. Method: online softmax, Milakov and Gimelshein 2018, arXiv 1805.02867; splitting decode
attention over the context as in Flash-Decoding, Dao et al. 2023.

Unmeasured: checked in Triton's interpreter only.
"""

# ruff: noqa: PLR0917 -- a kernel's arguments are positional
from __future__ import annotations

import torch
import triton
import triton.language as tl

from moe_ops.accelerator.tuning import Tuned, kernel, kernel_of, product_type
from moe_ops.latent_attention.heads import LatentHeads
from moe_ops.latent_attention.rows import PagedRows
from moe_ops.linear.cpu import unpacked

CHUNK = 512  # positions; a multiple of every BLOCK_S below


def latent_decode_(
    out_THV: torch.Tensor,
    q_THQ: torch.Tensor,
    cache_PZC: torch.Tensor,
    rows: PagedRows,
    *,
    heads: LatentHeads,
    scale: float,
) -> None:
    """As the reference; the two products with the heads' matrices are torch's."""
    key_HKL = unpacked(heads.key, like=q_THQ).unflatten(0, (heads.heads, -1)).transpose(1, 2)
    kv_b_HUL = unpacked(heads.kv_b, like=q_THQ).unflatten(0, (heads.heads, -1))
    value_HLV = kv_b_HUL[:, heads.nope :].transpose(1, 2)
    absorbed_HTL = torch.bmm(q_THQ[..., : heads.nope].transpose(0, 1), key_HKL)
    q_THC = torch.cat([absorbed_HTL.transpose(0, 1), q_THQ[..., heads.nope :]], dim=-1)
    latent_THL = latent_attention(q_THC, cache_PZC, rows, latent=heads.latent, scale=scale)
    values_HTV = torch.bmm(latent_THL.transpose(0, 1), value_HLV)
    out_THV.copy_(values_HTV.transpose(0, 1))


def latent_attention(
    q_THC: torch.Tensor,
    cache_PZC: torch.Tensor,
    rows: PagedRows,
    *,
    latent: int,
    scale: float,
    chunk: int = CHUNK,
) -> torch.Tensor:
    """Weighted latents (T, H, `latent`) in the type of `q_THC`.

    `chunk`: a multiple of 128, smaller in tests.
    """
    tokens, heads, width = q_THC.shape
    pairs = rows.pairs(cache_PZC.shape[1], chunk)
    programs = len(pairs.token_X)
    partial_XHL = q_THC.new_empty(programs, heads, latent, dtype=torch.float32)
    weight_XH = q_THC.new_empty(programs, heads, dtype=torch.float32)
    out_THL = q_THC.new_empty(tokens, heads, latent)
    where = (pairs.row_T, rows.first_B, rows.count_B, rows.end_B)
    sizes = {"CHUNK": chunk, "LATENT": latent, "LATENT_UP": triton.next_power_of_2(latent)}
    rotary = width - latent
    _KERNEL.launch(
        lambda tiles: (programs, triton.cdiv(heads, tiles["BLOCK_H"])),
        q_THC.contiguous(), cache_PZC, rows.pages_BP, pairs.token_X, pairs.chunk_X, *where,
        partial_XHL, weight_XH,
        cache_PZC.stride(0), cache_PZC.stride(1), rows.pages_BP.stride(0), scale, heads,
        PAGE=cache_PZC.shape[1], ROTARY=rotary, ROTARY_UP=max(16, triton.next_power_of_2(rotary)),
        PRODUCT=product_type(cache_PZC), **sizes,
    )  # fmt: skip
    _merge[(tokens, heads)](pairs.first_T, *where, partial_XHL, weight_XH, out_THL, heads, **sizes)
    return out_THL


@kernel_of("pages_step")
def _attend(
    q: tl.tensor,
    cache: tl.tensor,
    pages: tl.tensor,
    pair_tokens: tl.tensor,
    pair_chunks: tl.tensor,
    rows: tl.tensor,
    firsts: tl.tensor,
    counts: tl.tensor,
    ends: tl.tensor,
    partials: tl.tensor,
    weights: tl.tensor,
    page_step: tl.tensor,
    place_step: tl.tensor,
    pages_step: tl.tensor,
    scale: tl.tensor,
    heads: tl.tensor,
    PAGE: tl.constexpr,
    ROTARY: tl.constexpr,
    ROTARY_UP: tl.constexpr,
    PRODUCT: tl.constexpr,
    CHUNK: tl.constexpr,
    LATENT: tl.constexpr,
    LATENT_UP: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_S: tl.constexpr,
) -> None:
    pair = tl.program_id(0).to(tl.int64)
    token = tl.load(pair_tokens + pair).to(tl.int64)
    row = tl.load(rows + token)
    seen = tl.load(ends + row) - tl.load(counts + row) + (token - tl.load(firsts + row)).to(tl.int32) + 1
    start = tl.load(pair_chunks + pair) * CHUNK
    if start < seen:
        head = tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)
        some = head < heads
        latent, rotary = tl.arange(0, LATENT_UP), tl.arange(0, ROTARY_UP)
        q_row = q + (token * heads + head[:, None]) * (LATENT + ROTARY)
        q_latent = tl.load(
            q_row + latent[None, :], mask=some[:, None] & (latent < LATENT)[None, :], other=0.0
        ).to(PRODUCT)
        q_rotary = tl.load(
            q_row + LATENT + rotary[None, :], mask=some[:, None] & (rotary < ROTARY)[None, :], other=0.0
        ).to(PRODUCT)
        best = tl.full((BLOCK_H,), float("-inf"), tl.float32)
        total = tl.zeros((BLOCK_H,), tl.float32)
        found = tl.zeros((BLOCK_H, LATENT_UP), tl.float32)
        for place in range(start, tl.minimum(start + CHUNK, seen), BLOCK_S):
            position = place + tl.arange(0, BLOCK_S)
            visible = position < seen
            page = tl.load(pages + row * pages_step + position // PAGE, mask=visible, other=0).to(tl.int64)
            at = cache + page * page_step + (position % PAGE) * place_step
            # What can not be seen is read as 0: it may be no number, and 0 times that would spread.
            c_latent = tl.load(
                at[:, None] + latent[None, :], mask=visible[:, None] & (latent < LATENT)[None, :], other=0.0
            ).to(PRODUCT)
            c_rotary = tl.load(
                at[:, None] + LATENT + rotary[None, :],
                mask=visible[:, None] & (rotary < ROTARY)[None, :], other=0.0,
            ).to(PRODUCT)  # fmt: skip
            scores = tl.dot(q_latent, tl.trans(c_latent), input_precision="ieee")
            scores += tl.dot(q_rotary, tl.trans(c_rotary), input_precision="ieee")
            scores = tl.where(visible[None, :], scores * scale, float("-inf"))
            better = tl.maximum(best, tl.max(scores, axis=1))
            shrink = tl.exp(best - better)
            power = tl.exp(scores - better[:, None])
            total = total * shrink + tl.sum(power, axis=1)
            found = found * shrink[:, None] + tl.dot(power.to(PRODUCT), c_latent, input_precision="ieee")
            best = better
        result = pair * heads + head
        tl.store(weights + result, best + tl.log(total), mask=some)
        tl.store(
            partials + result[:, None] * LATENT + latent[None, :], found / total[:, None],
            mask=some[:, None] & (latent < LATENT)[None, :],
        )  # fmt: skip


@kernel
def _merge(
    first_pairs: tl.tensor,
    rows: tl.tensor,
    firsts: tl.tensor,
    counts: tl.tensor,
    ends: tl.tensor,
    partials: tl.tensor,
    weights: tl.tensor,
    out: tl.tensor,
    heads: tl.tensor,
    CHUNK: tl.constexpr,
    LATENT: tl.constexpr,
    LATENT_UP: tl.constexpr,
) -> None:
    token, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    row = tl.load(rows + token)
    seen = tl.load(ends + row) - tl.load(counts + row) + (token - tl.load(firsts + row)).to(tl.int32) + 1
    first = tl.load(first_pairs + token).to(tl.int64) * heads + head
    latent = tl.arange(0, LATENT_UP)
    inside = latent < LATENT
    best = tl.load(weights + first)
    total = best * 0 + 1
    found = tl.load(partials + first * LATENT + latent, mask=inside, other=0.0)
    for chunk in range(1, tl.cdiv(seen, CHUNK)):
        place = first + chunk * heads
        weight = tl.load(weights + place)
        better = tl.maximum(best, weight)
        shrink, power = tl.exp(best - better), tl.exp(weight - better)
        part = tl.load(partials + place * LATENT + latent, mask=inside, other=0.0)
        found = found * shrink + part * power
        total = total * shrink + power
        best = better
    at = out + (token * heads + head) * LATENT + latent
    tl.store(at, (found / total).to(out.dtype.element_ty), mask=inside)


_KERNEL = Tuned(
    _attend,
    [
        triton.Config({"BLOCK_H": 16, "BLOCK_S": 32}, num_warps=4, num_stages=2),
        triton.Config({"BLOCK_H": 16, "BLOCK_S": 64}, num_warps=8, num_stages=2),
        triton.Config({"BLOCK_H": 32, "BLOCK_S": 32}, num_warps=8, num_stages=2),
        triton.Config({"BLOCK_H": 64, "BLOCK_S": 64}, num_warps=8, num_stages=1),
    ],
    key=["heads", "LATENT", "ROTARY"],
)
