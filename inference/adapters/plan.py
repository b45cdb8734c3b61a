"""Which tokens of a step belong to which adapter.

All adapters of a step are served by the same forward pass; their small products are added to the big one's
result (S-LoRA, arXiv:2311.03285).
"""

from __future__ import annotations

from collections.abc import Sequence

from inference.adapters.files import Adapter
from moe_ops.lora import LoraBatch


def adapter_plan(adapter_T: Sequence[Adapter | None]) -> LoraBatch | None:
    """The plan for a flat batch whose tokens use these adapters; None when there are none.

    Adapters of equal files are one.
    """
    one = {adapter.digest: adapter.bank for adapter in adapter_T if adapter is not None}
    return LoraBatch.build([None if adapter is None else one[adapter.digest] for adapter in adapter_T])
