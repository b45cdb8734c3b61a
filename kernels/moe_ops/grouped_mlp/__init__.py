"""Gated MLPs of the chosen experts, weighted and added to a residual."""

from moe_ops.grouped_mlp.cpu import grouped_mlp_

__all__ = ["grouped_mlp_"]
