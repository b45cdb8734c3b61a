"""What `bench.accelerator` runs: each kernel beside plain torch on the same data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as fn

from moe_ops.grouped_mlp.dense import DenseExperts
from moe_ops.grouped_mlp.triton import grouped_mlp_
from moe_ops.latent_attention import SingleRows
from moe_ops.latent_attention.triton import latent_attention
from moe_ops.rms_norm import reference as norm_reference
from moe_ops.rms_norm.triton import rms_norm
from moe_ops.router import reference as router_reference
from moe_ops.router.reference import RouterSpec
from moe_ops.router.triton import route

Work = Callable[[], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Case:
    """One kernel. `tolerance`: of the relative error of the whole result; `bytes_read`: what must be read."""

    name: str
    kernel: Work
    peer: Work
    tolerance: float
    bytes_read: float
    operations: float


@dataclass(frozen=True, slots=True)
class Sizes:
    """A model's, and those of the batches."""

    dtype: torch.dtype
    hidden: int
    heads: int
    latent: int
    rotary: int
    experts: int
    width: int
    router: RouterSpec
    batches: tuple[int, ...]
    context: int
    page: int


LARGE = Sizes(
    torch.bfloat16, 7168, 128, 512, 64, 256, 2048, RouterSpec(8, 8, 4, "sigmoid", True, 2.5),
    (1, 8, 64, 256), 4096, 64,
)  # fmt: skip
SMALL = Sizes(
    torch.float32, 48, 4, 16, 8, 8, 24, RouterSpec(2, 4, 2, "sigmoid", True, 2.5), (1, 5), 40, 8
)  # fmt: skip


def cases(sizes: Sizes, device: torch.device) -> Iterator[Case]:
    """All kernels at all batches. Of one layer's experts the bytes of those that are touched count."""
    torch.manual_seed(0)
    experts = DenseExperts(
        _random(sizes, device, sizes.experts, 2 * sizes.width, sizes.hidden),
        _random(sizes, device, sizes.experts, sizes.hidden, sizes.width),
    )
    for batch in sizes.batches:
        x_TD = _random(sizes, device, batch, sizes.hidden) * sizes.hidden**0.5
        yield _norm(sizes, x_TD)
        yield _router(sizes, x_TD)
        yield _experts(sizes, x_TD, experts)
        yield _attention(sizes, batch, device)


def _norm(sizes: Sizes, x_TD: torch.Tensor) -> Case:
    weight_D = torch.ones(sizes.hidden, dtype=sizes.dtype, device=x_TD.device)
    return Case(
        f"rms_norm, {len(x_TD)} tokens",
        lambda: rms_norm(x_TD, weight_D, 1e-6),
        lambda: norm_reference.rms_norm(x_TD, weight_D, 1e-6),
        1e-2, 2 * x_TD.nbytes, 4 * x_TD.numel(),
    )  # fmt: skip


def _router(sizes: Sizes, x_TD: torch.Tensor) -> Case:
    weight_ED = torch.randn(sizes.experts, sizes.hidden, device=x_TD.device) / sizes.hidden**0.5
    bias_E = torch.randn(sizes.experts, device=x_TD.device) / 10
    spec = sizes.router

    def spread(pair: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return torch.zeros(len(x_TD), sizes.experts, device=x_TD.device).scatter_(1, pair[1], pair[0])

    return Case(
        f"router, {len(x_TD)} tokens",
        lambda: spread(route(x_TD, weight_ED, bias_E, spec)),
        lambda: spread(router_reference.route(x_TD, weight_ED, bias_E, spec)),
        1e-2, weight_ED.nbytes + x_TD.nbytes, 2 * x_TD.numel() * sizes.experts,
    )  # fmt: skip


def _experts(sizes: Sizes, x_TD: torch.Tensor, experts: DenseExperts) -> Case:
    top_k = sizes.router.top_k
    chosen_TK = torch.rand(len(x_TD), sizes.experts, device=x_TD.device).topk(top_k).indices
    weights_TK = torch.rand(len(x_TD), top_k, device=x_TD.device)
    touched = chosen_TK.unique().tolist()

    def peer() -> torch.Tensor:
        out_TD = torch.zeros_like(x_TD)
        for expert in touched:
            token, slot = torch.where(chosen_TK == expert)
            gate, up = (x_TD[token] @ experts.gate_up_EJD[expert].t()).chunk(2, dim=-1)
            y = (fn.silu(gate) * up) @ experts.down_EDI[expert].t()
            out_TD.index_add_(0, token, (y * weights_TK[token, slot, None]).to(out_TD.dtype))
        return out_TD

    each = experts.gate_up_EJD[0].nbytes + experts.down_EDI[0].nbytes
    return Case(
        f"grouped experts, {len(x_TD)} tokens",
        lambda: grouped_mlp_(
            torch.zeros_like(x_TD), x_TD, experts=experts, weights_TK=weights_TK, experts_TK=chosen_TK
        ),
        peer, 3e-2, len(touched) * each, 6 * len(x_TD) * top_k * sizes.hidden * sizes.width,
    )  # fmt: skip


def _attention(sizes: Sizes, batch: int, device: torch.device) -> Case:
    columns, width = -(-sizes.context // sizes.page), sizes.latent + sizes.rotary
    cache_PZC = _random(sizes, device, batch * columns, sizes.page, width) * width**0.5
    pages_BP = torch.randperm(batch * columns, device=device).view(batch, columns).int()
    ends_B = torch.full((batch,), sizes.context, dtype=torch.int32, device=device)
    rows = SingleRows.of(pages_BP, ends_B)
    q_THC = _random(sizes, device, batch, sizes.heads, width) * width**0.5
    scale = width**-0.5

    def peer() -> torch.Tensor:
        context_B1SC = cache_PZC[pages_BP.long()].flatten(1, 2)[:, None, : sizes.context]
        out_B1HC = fn.scaled_dot_product_attention(q_THC[:, None], context_B1SC, context_B1SC, scale=scale)
        latent_BHL: torch.Tensor = out_B1HC[:, 0, :, : sizes.latent]
        return latent_BHL

    seen = batch * sizes.context
    return Case(
        f"latent attention, {batch} × {sizes.context}",
        lambda: latent_attention(q_THC, cache_PZC, rows, latent=sizes.latent, scale=scale),
        peer, 2e-2, seen * width * cache_PZC.element_size(), 2 * seen * sizes.heads * (width + sizes.latent),
    )  # fmt: skip


def _random(sizes: Sizes, device: torch.device, *shape: int) -> torch.Tensor:
    random: torch.Tensor = torch.randn(*shape, device=device, dtype=sizes.dtype) / shape[-1] ** 0.5
    return random
