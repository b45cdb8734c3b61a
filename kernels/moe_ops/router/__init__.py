"""Choice of experts and their weights, as DeepSeek-V2 and V3 route."""

from moe_ops.router.reference import RouterSpec, route

__all__ = ["RouterSpec", "route"]
