"""Gated MLPs of the chosen experts, weighted and added to a residual.

`packed_mlp_` takes packed experts, `grouped_mlp_` plain tensors of torch.
"""

from moe_ops.grouped_mlp.cpu import grouped_mlp_
from moe_ops.grouped_mlp.native import packed_mlp_
from moe_ops.grouped_mlp.packing import (
    PackedExperts,
    pack_experts,
    split_mlp,
    stack_experts,
    unpack_experts,
)

__all__ = [
    "PackedExperts",
    "grouped_mlp_",
    "pack_experts",
    "packed_mlp_",
    "split_mlp",
    "stack_experts",
    "unpack_experts",
]
