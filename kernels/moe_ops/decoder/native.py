"""A decoder bound to the C++ kernels: weights are checked once, and a call checks its batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from moe_ops import native
from moe_ops.grouped_mlp import PackedExperts
from moe_ops.latent_attention import LatentHeads, PagedRows
from moe_ops.linear import PackedMatrix
from moe_ops.router import RouterSpec

_NO_CHOICE = RouterSpec(0, 1, 1, "softmax", normalize=False, scale=1.0)


@dataclass(frozen=True, slots=True)
class DecoderShape:
    """Widths that all layers share; `scale` multiplies scores, `inner_eps` is that of the norms within
    attention.
    """

    hidden: int
    heads: int
    nope: int
    rotary: int
    value: int
    latent: int
    scale: float
    eps: float
    inner_eps: float


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """One layer. `q_norm` and `q_b` are None where `inner` gives the queries themselves, `router_ED` is None
    where all `experts` are shared.
    """

    attention_norm: torch.Tensor
    inner: PackedMatrix
    q_norm: torch.Tensor | None
    q_b: PackedMatrix | None
    kv_norm: torch.Tensor
    heads: LatentHeads
    o: PackedMatrix
    mlp_norm: torch.Tensor
    router_ED: torch.Tensor | None
    bias_E: torch.Tensor | None
    experts: PackedExperts
    shared: int


@dataclass(frozen=True, slots=True)
class DecoderEnds:
    """What comes before the layers, and after them: `embedding_VD` is float32 or bfloat16."""

    embedding_VD: torch.Tensor
    norm: torch.Tensor
    head: PackedMatrix


class NativeDecoder:
    """Holds no state of any request. Raises `RuntimeError` for weights that do not fit each other, and
    `ValueError` where the kernels are not compiled.
    """

    def __init__(
        self, shape: DecoderShape, spec: RouterSpec | None, layers: Sequence[LayerWeights], ends: DecoderEnds
    ) -> None:
        if not native.available():
            raise ValueError("CPU kernels are not compiled: python -m moe_ops.native.build")
        s, r = shape, spec or _NO_CHOICE
        self._bound = torch.classes.tokenworks.Decoder(
            {
                "hidden": s.hidden,
                "heads": s.heads,
                "nope": s.nope,
                "rotary": s.rotary,
                "value": s.value,
                "latent": s.latent,
                "top_k": r.top_k,
                "groups": r.groups,
                "groups_kept": r.groups_kept,
                "sigmoid": int(r.scoring == "sigmoid"),
                "normalize": int(r.normalize),
            },
            {"scale": s.scale, "eps": s.eps, "inner_eps": s.inner_eps, "routed": r.scale},
        )
        for layer in layers:
            self._bound.add_layer(*_layer(layer))
        self._bound.set_ends(
            {"embedding": ends.embedding_VD, "norm": ends.norm, **_tensors("head", ends.head)},
            {"vocabulary": ends.head.outputs, "head_code": ends.head.code},
        )

    def forward(
        self,
        token_T: torch.Tensor,
        *,
        turn_TR: torch.Tensor,
        slot_T: torch.Tensor,
        rows: PagedRows,
        last_S: torch.Tensor,
        cache_LPZC: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (fp32) of the tokens `last_S`, and all tokens' states after the last norm.

        Every token belongs to one of `rows`; its latent goes to its slot of each layer's cache. The cache may
        have more layers than the decoder. Raises `RuntimeError` for shapes or types that do not fit, and
        `IndexError` for tokens, slots or places that are not there.
        """
        found: tuple[torch.Tensor, torch.Tensor] = self._bound.forward(
            token_T,
            turn_TR,
            slot_T,
            rows.pages_BP,
            rows.first_B,
            rows.count_B,
            rows.end_B,
            last_S,
            cache_LPZC,
        )
        return found


def _layer(w: LayerWeights) -> tuple[dict[str, torch.Tensor], dict[str, int]]:
    """The tensors and numbers of a layer, by the names that `csrc/decoder_registration.cpp` reads."""
    experts = w.experts
    tensors = {
        "attention_norm": w.attention_norm,
        **_tensors("inner", w.inner),
        "kv_norm": w.kv_norm,
        **_tensors("kv_b", w.heads.kv_b),
        **_tensors("key", w.heads.key),
        **_tensors("o", w.o),
        "mlp_norm": w.mlp_norm,
        **_tensors("gate_up", experts.gate_up),
        **_tensors("down", experts.down),
    }
    numbers = {
        "low": 0,
        "inner_code": w.inner.code,
        "kv_b_code": w.heads.kv_b.code,
        "key_code": w.heads.key.code,
        "o_code": w.o.code,
        "experts_code": experts.gate_up.code,
        "experts": experts.experts,
        "width": experts.width,
        "shared": w.shared,
    }
    if w.q_b is not None and w.q_norm is not None:
        tensors |= {"q_norm": w.q_norm, **_tensors("q_b", w.q_b)}
        numbers |= {"low": w.q_b.inputs, "q_b_code": w.q_b.code}
    optional = {"router": w.router_ED, "bias": w.bias_E}
    return tensors | {name: one for name, one in optional.items() if one is not None}, numbers


def _tensors(name: str, matrix: PackedMatrix) -> dict[str, torch.Tensor]:
    return {name: matrix.data, f"{name}_scales": matrix.scales}
