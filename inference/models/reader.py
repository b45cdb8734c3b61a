"""From a checkpoint's tensors to packed pieces, whatever the architecture."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from inference.layers.decoder_layer import Attention, DecoderLayer
from inference.layers.forms import Packing
from inference.layers.mlp import GatedMlp
from inference.layers.moe import MoeMlp
from inference.models.checkpoint import Checkpoint
from inference.models.packed import PackedStore
from moe_ops.grouped_mlp import PackedExperts, pack_experts, split_mlp, stack_experts
from moe_ops.linear import PackedMatrix
from moe_ops.linear.packing import TILE, stack_matrices

_PACKED_AT_ONCE = 1 << 22  # numbers
_KEEP_NOTHING = PackedStore(None)


class WeightReader:
    """Reads the modules of one checkpoint by name; packed pieces are kept in `store`."""

    def __init__(self, checkpoint: Checkpoint, packing: Packing, store: PackedStore = _KEEP_NOTHING) -> None:
        self.checkpoint = checkpoint
        self.packing = packing
        self.store = store

    def embedding(self) -> torch.Tensor:
        """One row per token, mapped from the file where it is of the right type and place."""
        return self.checkpoint.map("model.embed_tokens.weight", self.packing.kept).to(self.packing.device)

    def head(self, *, tied: bool) -> PackedMatrix:
        """What turns states into logits: the embedding itself where both are `tied`."""
        return self.matrix("model.embed_tokens" if tied else "lm_head")

    def layer(self, name: str, *, attention: Attention, mlp: GatedMlp | MoeMlp) -> DecoderLayer:
        """The decoder layer `name` with its two norms."""
        return DecoderLayer(
            attention_norm=self.weight(f"{name}.input_layernorm"),
            attention=attention,
            mlp_norm=self.weight(f"{name}.post_attention_layernorm"),
            mlp=mlp,
            forms=self.packing.forms,
        )

    def weight(self, module: str) -> torch.Tensor:
        """The weight of `module` in fp32, where it is computed with: of norms and routers."""
        return self.unpacked(module).to(self.packing.device)

    def unpacked(self, module: str) -> torch.Tensor:
        """The weight of `module` in fp32 and in the host's memory, to be packed."""
        return self.checkpoint.read(f"{module}.weight", torch.float32)

    def matrix(self, module: str) -> PackedMatrix:
        """The weight of `module`, packed."""
        return self.store.piece(module, PackedMatrix, lambda: self._pack_matrix(f"{module}.weight"))

    def experts(self, name: str, modules: Sequence[tuple[str, int]]) -> PackedExperts:
        """Gated MLPs as one stack, the piece `name`: each of `modules` as so many experts of equal width."""
        return self.store.piece(
            name, PackedExperts, lambda: stack_experts([self.pack_mlp(*module) for module in modules])
        )

    def _pack_matrix(self, name: str) -> PackedMatrix:
        """Some rows at a time: an output head in fp32, with what is made of it on the way, takes more memory
        than any layer.
        """
        weight_OI = self.checkpoint.read(name, self.checkpoint.stored(name))
        rows = max(_PACKED_AT_ONCE // weight_OI.shape[1] // TILE, 1) * TILE
        return stack_matrices([self.packing.pack(part) for part in weight_OI.split(rows)])

    def pack_mlp(self, module: str, count: int) -> PackedExperts:
        """The gated MLP `module` as `count` experts of equal width, packed anew."""
        gate, up, down = (self.unpacked(f"{module}.{part}_proj") for part in ("gate", "up", "down"))
        packing = self.packing
        whole = split_mlp(gate, up, down, count)
        return pack_experts(*whole, packing.weights, activations=packing.activations)
