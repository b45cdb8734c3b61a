"""GPUs: NVIDIA's, and AMD's where torch is built for them. Operations are Triton's kernels and torch's own
products. Unmeasured: run in Triton's interpreter only.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from inference.layers.forms import CPU, TORCH
from inference.layers.placement import DeviceError, Placement
from moe_ops.accelerator.graphs import CudaCapture, rerun
from moe_ops.accelerator.tuning import interpreted
from moe_ops.grouped_mlp.triton import packed_mlp_
from moe_ops.latent_attention.triton import latent_decode_
from moe_ops.latent_attention.triton_expand import latent_expand_
from moe_ops.latent_store.triton import latent_store_
from moe_ops.lora.device import lora_add_, lora_mlp_
from moe_ops.rms_norm.triton import rms_norm
from moe_ops.router.triton import route

TRITON = replace(
    TORCH,
    grouped_mlp_=packed_mlp_,
    rms_norm=rms_norm,
    route=route,
    latent_store_=latent_store_,
    latent_decode_=latent_decode_,
    latent_expand_=latent_expand_,
    lora_add_=lora_add_,
    lora_mlp_=lora_mlp_,
)


def placement() -> Placement:
    """The current GPU. With `TRITON_INTERPRET=1` the same kernels run as programs of the CPU, slowly: to look
    into them, and to test all that is around them. Raises `DeviceError` where there is no GPU.
    """
    if interpreted():
        return Placement(CPU, TRITON, rerun)
    if not torch.cuda.is_available():
        raise DeviceError("device cuda: torch finds no GPU: is it built for one, is there a driver?")
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False  # sums stay fp32
    return Placement(torch.device("cuda", torch.cuda.current_device()), TRITON, CudaCapture())
