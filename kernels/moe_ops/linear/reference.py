"""The definition."""

from __future__ import annotations

import torch
import torch.nn.functional as fn

from moe_ops.linear.packing import PackedMatrix, unpack_matrix

ACTIVATION_GROUP = 128


def linear(x_TI: torch.Tensor, w: PackedMatrix) -> torch.Tensor:
    """`x · Wᵀ` in fp32 with the weights as rounded, and with the activations rounded where `w` says so."""
    return activations_met(x_TI, w) @ unpack_matrix(w).t()


def activations_met(x_TI: torch.Tensor, w: PackedMatrix) -> torch.Tensor:
    """`x` as `w` meets it: rounded where `w` says so."""
    if w.format in ("int8", "int4") and w.activations == "int8":
        return round_activations(x_TI)
    return x_TI


def round_activations(x_TI: torch.Tensor) -> torch.Tensor:
    """`x` as int8 times a scale of each token and group of 128: the largest of a group becomes ±127."""
    inputs = x_TI.shape[1]
    group_TGX = fn.pad(x_TI, (0, -inputs % ACTIVATION_GROUP)).unflatten(1, (-1, ACTIVATION_GROUP))
    largest_TG1 = group_TGX.abs().amax(2, keepdim=True)
    # a quotient of two tensors is rounded once; torch makes `127 / tensor` of two operations
    inverse_TG1 = torch.tensor(127.0) / largest_TG1
    code_TGX = (group_TGX * torch.where(largest_TG1 == 0, 0.0, inverse_TG1)).round()
    rounded_TGX: torch.Tensor = code_TGX * (largest_TG1 / 127)
    return rounded_TGX.flatten(1)[:, :inputs]
