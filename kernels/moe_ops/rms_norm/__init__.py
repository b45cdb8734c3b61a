"""Root-mean-square normalisation of the last dimension."""

from moe_ops.rms_norm.native import rms_norm

__all__ = ["rms_norm"]
