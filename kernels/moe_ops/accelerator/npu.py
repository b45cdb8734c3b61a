"""Ascend's operations, where `torch_npu` is installed."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def operations() -> Any:
    """The module `torch_npu`, which carries no types. Raises `RuntimeError` where it is not installed."""
    try:
        return import_module("torch_npu")
    except ImportError as error:
        raise RuntimeError("torch_npu is not installed: Ascend kernels need it and an NPU") from error
