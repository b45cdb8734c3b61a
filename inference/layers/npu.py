"""Ascend's NPUs: its own operations where they fit, plain torch elsewhere. Unmeasured: never run on one."""

from __future__ import annotations

from dataclasses import replace

import torch

from inference.layers.forms import TORCH
from inference.layers.placement import DeviceError, Placement
from moe_ops.accelerator.npu import operations
from moe_ops.grouped_mlp.npu import packed_mlp_
from moe_ops.latent_store.npu import latent_store_
from moe_ops.lora.device import lora_add_, lora_mlp_
from moe_ops.rms_norm.npu import rms_norm
from moe_ops.router.npu import route

NPU = replace(
    TORCH,
    grouped_mlp_=packed_mlp_,
    rms_norm=rms_norm,
    route=route,
    latent_store_=latent_store_,
    lora_add_=lora_add_,
    lora_mlp_=lora_mlp_,
)


def placement() -> Placement:
    """The current NPU. Raises `DeviceError` where `torch_npu` is not installed."""
    try:
        available = operations().npu.is_available()
    except RuntimeError as error:
        raise DeviceError(f"device npu: {error}") from error
    if not available:
        raise DeviceError("device npu: torch_npu finds no NPU")
    return Placement(torch.device("npu"), NPU)
