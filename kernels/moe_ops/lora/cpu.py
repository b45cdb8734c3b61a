"""Plain torch: as the definitions, but activations are not rounded."""

from __future__ import annotations

from functools import partial

from moe_ops.lora import reference

lora_add_ = reference.lora_add_
lora_mlp_ = partial(reference.lora_mlp_, rounds=False)
