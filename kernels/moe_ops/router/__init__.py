"""Choice of experts and their weights, as DeepSeek-V2 and V3 route."""

from moe_ops.router.native import route
from moe_ops.router.reference import RouterSpec

__all__ = ["RouterSpec", "route"]
