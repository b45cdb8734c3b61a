"""Products with packed weights: `linear(x, w)` is `x · Wᵀ`."""

from moe_ops.linear.native import linear
from moe_ops.linear.packing import (
    FORMATS,
    LAYOUT_VERSION,
    Activations,
    PackedMatrix,
    WeightFormat,
    pack_matrix,
    packed_shapes,
    unpack_matrix,
)

__all__ = [
    "FORMATS",
    "LAYOUT_VERSION",
    "Activations",
    "PackedMatrix",
    "WeightFormat",
    "linear",
    "pack_matrix",
    "packed_shapes",
    "unpack_matrix",
]
