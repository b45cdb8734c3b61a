"""Low-rank changes of weights (LoRA, arXiv:2106.09685) for tokens of many adapters in one call.

`lora_add_` adds those of plain projections, `lora_mlp_` computes gated MLPs with those of their parts.
"""

from moe_ops.lora.bank import LoraBank, LowRank, pack_low_rank
from moe_ops.lora.batch import LoraBatch
from moe_ops.lora.names import ExpertNames, Parts
from moe_ops.lora.native import lora_add_, lora_mlp_

__all__ = [
    "ExpertNames",
    "LoraBank",
    "LoraBatch",
    "LowRank",
    "Parts",
    "lora_add_",
    "lora_mlp_",
    "pack_low_rank",
]
