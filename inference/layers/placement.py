"""Where a model runs, and what it needs there: a device, a form of every operation, a way to record steps."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Literal

import torch

from inference.layers.forms import CPU, Forms, Packing, forms_for
from moe_ops.accelerator.graphs import Capture
from moe_ops.linear import Activations, WeightFormat

Device = Literal["cpu", "cuda", "npu"]
_ACCELERATORS = {"cuda": "inference.layers.gpu", "npu": "inference.layers.npu"}  # imported where wanted


class DeviceError(ValueError):
    """The device is not there, or what it needs is not installed."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Tensors lie on `device` and meet in `forms`; `capture` records steps that only decode (None: nothing
    records there). An accelerator computes in the type of its weights, a CPU (`wide`) in fp32.
    """

    device: torch.device
    forms: Forms
    capture: Capture | None = None
    wide: bool = False

    def packing(self, weights: WeightFormat, activations: Activations) -> Packing:
        """How weights of a format are kept here. Raises `DeviceError` for one that is not computed with."""
        if self.wide:
            return Packing(weights, self.forms, activations)
        if weights not in ("float32", "bfloat16"):
            raise DeviceError(f"{weights} weights need device cpu; others take float32 and bfloat16")
        computed = torch.float32 if weights == "float32" else torch.bfloat16
        return Packing(weights, self.forms, activations, self.device, computed)


def on_cpu(*, native: bool | None = None, reference: bool = False) -> Placement:
    """The CPU, with the forms that `forms_for` chooses."""
    return Placement(CPU, forms_for(native=native, reference=reference), wide=True)


def on_device(name: Device) -> Placement:
    """The CPU, or the first accelerator of a kind. Raises `DeviceError` when there is none that works."""
    if name == "cpu":
        return on_cpu()
    try:
        placement: Placement = import_module(_ACCELERATORS[name]).placement()
    except ImportError as error:
        raise DeviceError(f"device {name}: {error}") from error
    return placement
