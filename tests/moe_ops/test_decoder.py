"""Binding a decoder's weights: what does not fit is refused, what is bound lives as long as the decoder."""

from __future__ import annotations

import dataclasses
import gc
import weakref
from typing import Any

import pytest
import torch

from moe_ops import native
from moe_ops.decoder import DecoderEnds, DecoderShape, LayerWeights, NativeDecoder
from moe_ops.grouped_mlp import PackedExperts, pack_experts
from moe_ops.latent_attention import PagedRows, pack_latent_heads
from moe_ops.linear import PackedMatrix, pack_matrix
from moe_ops.router import RouterSpec

pytestmark = pytest.mark.usefixtures("isa")
SHAPE = DecoderShape(
    hidden=32, heads=2, nope=8, rotary=4, value=8, latent=16, scale=0.3, eps=1e-6, inner_eps=1e-6
)
SPEC = RouterSpec(2, 1, 1, "softmax", normalize=True, scale=1.0)


def matrix(outputs: int, inputs: int) -> PackedMatrix:
    return pack_matrix(torch.randn(outputs, inputs), "int8")


def experts(count: int, hidden: int = 32) -> PackedExperts:
    return pack_experts(torch.randn(count, 32, hidden), torch.randn(count, hidden, 16), "int8")


def layer() -> LayerWeights:
    return LayerWeights(
        attention_norm=torch.ones(32),
        inner=matrix(2 * 12 + 20, 32),
        q_norm=None,
        q_b=None,
        kv_norm=torch.ones(16),
        heads=pack_latent_heads(torch.randn(2, 16, 16), nope=8, weight_format="int8"),
        o=matrix(32, 16),
        mlp_norm=torch.ones(32),
        router_ED=torch.randn(4, 32),
        bias_E=None,
        experts=experts(5),
        shared=1,
    )


def ends() -> DecoderEnds:
    return DecoderEnds(torch.randn(10, 32).bfloat16(), torch.ones(32), matrix(10, 32))


def one_token(decoder: NativeDecoder, cache_LPZC: torch.Tensor) -> torch.Tensor:
    logits_SV, _ = decoder.forward(
        torch.tensor([3]),
        turn_TR=torch.ones(1, 2, dtype=torch.complex64),
        slot_T=torch.tensor([2]),
        rows=PagedRows.build(pages=[[0]], counts=[1], ends=[3], page_size=4),
        last_S=torch.tensor([0]),
        cache_LPZC=cache_LPZC,
    )
    return logits_SV


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attention_norm": torch.ones(31)}, r"attention_norm has shape \[31\], not \(32\)"),
        ({"kv_norm": torch.ones(16).double()}, "kv_norm: expected contiguous float32"),
        ({"inner": matrix(45, 48)}, "data of a matrix of 44 × 32"),
        ({"o": matrix(48, 16)}, "data of a matrix of 32 × 16"),
        ({"q_norm": torch.ones(8), "q_b": matrix(24, 8)}, "data of a matrix of 28 × 32"),
        ({"router_ED": torch.randn(5, 32)}, r"router has shape \[5, 32\], not \(4, 32\)"),
        ({"bias_E": torch.zeros(5)}, r"bias has shape \[5\], not \(4\)"),
        ({"router_ED": None}, "experts without a router"),
        ({"experts": experts(5, hidden=48)}, "data of a matrix of 160 × 32"),
        ({"experts": experts(1), "router_ED": torch.randn(0, 32)}, "0 experts can not be routed so"),
        ({"shared": 6}, "6 of them shared"),
    ],
)
def test_weights_that_do_not_fit_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        NativeDecoder(SHAPE, SPEC, [dataclasses.replace(layer(), **change)], ends())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"embedding_VD": torch.randn(10, 31)}, "the embedding must be"),
        ({"embedding_VD": torch.randn(10, 32).half()}, "the embedding must be"),
        ({"norm": torch.ones(33)}, r"norm has shape \[33\]"),
        ({"head": matrix(10, 48)}, "data of a matrix of 10 × 32"),
    ],
)
def test_ends_that_do_not_fit_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        NativeDecoder(SHAPE, SPEC, [layer()], dataclasses.replace(ends(), **change))


def test_bound_weights_live_as_long_as_the_decoder() -> None:
    bound, first = layer(), ends()
    held = [weakref.ref(bound.o.data), weakref.ref(bound.mlp_norm), weakref.ref(first.embedding_VD)]
    decoder = NativeDecoder(SHAPE, SPEC, [bound], first)
    cache = torch.randn(1, 1, 4, 20)
    expected = one_token(decoder, cache.clone())
    del bound, first
    gc.collect()
    assert all(one() is not None for one in held)
    assert one_token(decoder, cache).equal(expected)
    del decoder
    gc.collect()
    assert all(one() is None for one in held)


def test_without_the_library_nothing_is_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(native, "available", lambda: False)
        with pytest.raises(ValueError, match="not compiled"):
            NativeDecoder(SHAPE, SPEC, [layer()], ends())
