"""A decoder's layers as one call of the C++ kernels, where nothing comes between their operations."""

from __future__ import annotations

from collections.abc import Sequence

from inference.layers.attention import INNER_EPS, AttentionShape, AttentionWeights, LatentAttention
from inference.layers.batch import FlatBatch
from inference.layers.decoder_layer import DecoderLayer
from inference.layers.forms import NATIVE
from inference.layers.moe import MoeMlp
from moe_ops import native
from moe_ops.decoder import DecoderEnds, DecoderShape, LayerWeights, NativeDecoder


def whole_decoder(layers: Sequence[DecoderLayer], ends: DecoderEnds, *, eps: float) -> NativeDecoder | None:
    """`layers` bound together; None unless all are plain ones of latent attention on compiled kernels."""
    attentions = [layer.attention for layer in layers if isinstance(layer.attention, LatentAttention)]
    shapes = {attention.shape for attention in attentions}
    specs = {layer.mlp.router[1] for layer in layers if isinstance(layer.mlp, MoeMlp)}
    plain = len(attentions) == len(layers) and all(_is_plain(layer) for layer in layers)
    if not plain or len(shapes) != 1 or len(specs) > 1 or not native.available():
        return None
    shape = _shape(shapes.pop(), hidden=ends.embedding_VD.shape[1], eps=eps)
    weights = [
        _weights(layer, attention.weights) for layer, attention in zip(layers, attentions, strict=True)
    ]
    return NativeDecoder(shape, next(iter(specs), None), weights, ends)


def is_plain(batch: FlatBatch) -> bool:
    """Whether nothing of a batch needs to be done between operations: few new tokens in every row, no
    adapters, no restricted routing, and nobody who watches.
    """
    return (
        batch.short is not None
        and not batch.long
        and batch.adapters is None
        and batch.routing is None
        and batch.observer is None
    )


def _is_plain(layer: DecoderLayer) -> bool:
    """A part of a layer whose results are summed over processes is of another class, or has other forms."""
    parts = layer, layer.attention, layer.mlp
    return type(layer) is DecoderLayer and all(getattr(part, "forms", None) is NATIVE for part in parts)


def _shape(shape: AttentionShape, *, hidden: int, eps: float) -> DecoderShape:
    return DecoderShape(
        hidden=hidden,
        heads=shape.heads,
        nope=shape.nope,
        rotary=shape.rotary,
        value=shape.value,
        latent=shape.latent,
        scale=shape.scale,
        eps=eps,
        inner_eps=INNER_EPS,
    )


def _weights(layer: DecoderLayer, attention: AttentionWeights) -> LayerWeights:
    mlp = layer.mlp
    return LayerWeights(
        attention_norm=layer.attention_norm,
        inner=attention.inner,
        q_norm=attention.q_norm,
        q_b=attention.q_b,
        kv_norm=attention.kv_norm,
        heads=attention.heads,
        o=attention.o,
        mlp_norm=layer.mlp_norm,
        router_ED=mlp.router[0] if isinstance(mlp, MoeMlp) else None,
        bias_E=mlp.bias_E if isinstance(mlp, MoeMlp) else None,
        experts=mlp.experts,
        shared=mlp.shared if isinstance(mlp, MoeMlp) else mlp.experts.experts,
    )
