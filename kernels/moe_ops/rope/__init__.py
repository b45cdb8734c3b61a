"""Rotary positions in interleaved pairs."""

from moe_ops.rope.reference import rotate_pairs

__all__ = ["rotate_pairs"]
