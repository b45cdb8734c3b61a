"""A decoder of layers with attention and MLP, each on a normed residual stream, over a paged cache."""

from __future__ import annotations

import math
import mmap

import torch

from inference.layers.attention import LatentAttention
from inference.layers.batch import FlatBatch
from inference.layers.decoder_layer import DecoderLayer
from inference.layers.forms import Packing
from inference.layers.moe import MoeMlp
from inference.layers.whole import is_plain, whole_decoder
from inference.models.interface import Architecture, DraftModule, Forward, Routers
from moe_ops.decoder import DecoderEnds
from moe_ops.linear import PackedMatrix


class Decoder:
    """Weights of one checkpoint, ready to run. Holds no state of any request.

    `cached` is how many numbers a layer keeps of a token.
    """

    config: Architecture

    def __init__(
        self,
        *,
        config: Architecture,
        cached: int,
        turn_XR: torch.Tensor,
        embedding: torch.Tensor,
        layers: tuple[DecoderLayer, ...],
        norm: torch.Tensor,
        head: PackedMatrix,
        packing: Packing,
        mtp: DraftModule | None = None,
    ) -> None:
        self.config = config
        self.dtype = packing.computed
        self.turn_XR = turn_XR
        self.mtp = mtp
        self._cached = cached
        self._embedding = embedding
        self._layers = layers
        self._norm = norm
        self._head = head
        self._forms = packing.forms
        ends = DecoderEnds(embedding, norm, head)
        self._whole = whole_decoder(layers, ends, eps=config.rms_norm_eps)

    @property
    def routers(self) -> Routers:
        """Each routed layer's router weight (experts, hidden), fp32, and how it chooses."""
        return tuple(layer.mlp.router for layer in self._layers if isinstance(layer.mlp, MoeMlp))

    @property
    def recordable(self) -> bool:
        """Whether a step's operations are the same for any contexts: nothing is looked up on the device."""
        return all(isinstance(layer.attention, LatentAttention) for layer in self._layers)

    def new_cache(self, *, pages: int, page_size: int) -> torch.Tensor:
        """A zeroed cache of shape (layers, pages, positions in a page, numbers of a token); the last layer is
        the prediction module's where it is loaded.
        """
        layers = len(self._layers) + (self.mtp is not None)
        return _zeros((layers, pages, page_size, self._cached), like=self._embedding)

    def forward(self, batch: FlatBatch, cache: torch.Tensor) -> Forward:
        """Compute all tokens of `batch` and write what later ones need of them to `cache`."""
        if self._whole is not None and batch.short is not None and is_plain(batch):
            return Forward(
                *self._whole.forward(
                    batch.token_T,
                    turn_TR=batch.turn_TR,
                    slot_T=batch.slot_T,
                    rows=batch.short,
                    last_S=batch.last_S,
                    cache_LPZC=cache,
                )
            )
        return self._layer_by_layer(batch, cache)

    def _layer_by_layer(self, batch: FlatBatch, cache: torch.Tensor) -> Forward:
        eps = self.config.rms_norm_eps
        x_TD = self._embedding.index_select(0, batch.token_T).to(self.dtype)
        for index, layer in enumerate(self._layers):
            layer.add_to(x_TD, cache[index], batch, eps)
        hidden_TD = self._forms.rms_norm(x_TD, self._norm, eps)
        logits_SV = self._forms.logits(hidden_TD.index_select(0, batch.last_S), self._head)
        return Forward(logits_SV, hidden_TD)


def _zeros(shape: tuple[int, ...], *, like: torch.Tensor) -> torch.Tensor:
    """Zeros. On a CPU they take memory where they are first written: the system's own, which nobody has to
    write.
    """
    dtype = like.dtype
    if like.device.type != "cpu":
        return like.new_zeros(shape)
    size, own = math.prod(shape) * dtype.itemsize, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    return torch.frombuffer(mmap.mmap(-1, size, own), dtype=dtype).view(shape)
