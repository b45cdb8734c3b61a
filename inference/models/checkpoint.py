"""Reading the tensors of a Hugging Face checkpoint folder: one or more safetensors files, with or without an
index.

Names, types and shapes are compared with what the architecture expects before any tensor is read, from the
files' headers.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from inference.models.fp8 import SCALE_SUFFIX, Fp8Blocks
from inference.models.headers import CheckpointError, TensorHeader, read_headers
from inference.models.index import check_index, checkpoint_files, listed

_FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_FP8 = "F8_E4M3"
_SURPLUS_MAX = 10_000  # more missing than that, and the configuration is another model's

__all__ = ["Checkpoint", "CheckpointError"]


class Checkpoint:
    """The open files of one checkpoint. Use as a context manager. `fp8`: the blocks of its FP8 matrices."""

    def __init__(self, path: Path, *, fp8: Fp8Blocks | None = None) -> None:
        self._path = path
        self._fp8 = fp8
        self._stack = ExitStack()
        self._home: dict[str, Any] = {}  # tensor name -> open file; safetensors ships no types
        self._files: dict[str, Path] = {}
        self._headers: dict[str, TensorHeader] = {}

    def __enter__(self) -> Checkpoint:
        names, weight_map = checkpoint_files(self._path)
        headers = {name: read_headers(self._path / name) for name in names}
        if weight_map is not None:
            check_index(self._path, weight_map, headers)
        with ExitStack() as stack:
            for name in names:
                self._add(self._path / name, headers[name], self._open(stack, name))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def check(self, expected: Iterable[tuple[str, tuple[int, ...]]], ignored: tuple[str, ...]) -> None:
        """Compare with the `expected` names and shapes; others that start with one of `ignored` are let be.

        Raises one `CheckpointError` that names everything missing, unexpected, misshapen or of a strange
        type.
        """
        faults: dict[str, list[str]] = {
            "missing": [], "unexpected": [], "misshapen": [], "of an unsupported type": []
        }  # fmt: skip
        known: set[str] = set()
        for name, shape in expected:
            known |= {name, name + SCALE_SUFFIX} if self._is_fp8(name) else {name}
            if len(faults["missing"]) > len(self._headers) + _SURPLUS_MAX:
                break  # a configuration may name more tensors than there is memory for
            self._compare(name, shape, faults)
        present = (name for name in self._headers if name not in known and not name.startswith(ignored))
        faults["unexpected"] += present
        parts = [f"{len(names)} {kind}: {listed(sorted(names))}" for kind, names in faults.items() if names]
        if parts:
            raise CheckpointError(f"{self._path}: tensors do not fit config.json. " + "; ".join(parts))

    def read(self, name: str, dtype: torch.dtype) -> torch.Tensor:
        """One tensor, converted to `dtype`. Raises `CheckpointError` for FP8 factors that are no numbers."""
        tensor = self._tensor(name)
        if self._fp8 is None or not self._is_fp8(name):
            return tensor.to(dtype)
        scale = self._tensor(name + SCALE_SUFFIX)
        if not scale.isfinite().all():
            raise CheckpointError(f"{self._path}: {name}{SCALE_SUFFIX} holds factors that are not finite")
        return self._fp8.expand(tensor, scale, dtype)

    def stored(self, name: str) -> torch.dtype:
        """The type in which `read` loses nothing of a tensor: the file's own, fp32 for FP8."""
        return _FLOATS.get(self._headers[name].dtype, torch.float32)

    def map(self, name: str, dtype: torch.dtype) -> torch.Tensor:
        """As `read`, but the file's own bytes where they are of type `dtype` already: memory is taken when
        they are looked at.
        """
        if _FLOATS.get(self._headers[name].dtype) != dtype:
            return self.read(name, dtype)
        tensor: torch.Tensor = self._home[name].get_tensor(name)
        return tensor

    def _compare(self, name: str, shape: tuple[int, ...], faults: dict[str, list[str]]) -> None:
        header = self._headers.get(name)
        if header is None:
            faults["missing"].append(name)
        elif header.shape != shape:
            faults["misshapen"].append(f"{name} (expected {shape}, found {header.shape})")
        elif header.dtype == _FP8 and self._fp8 is not None and len(shape) == 2:
            self._compare_scale(name + SCALE_SUFFIX, self._fp8.scale_shape(shape), faults)
        elif header.dtype not in _FLOATS:
            faults["of an unsupported type"].append(f"{name} ({header.dtype})")

    def _compare_scale(self, name: str, shape: tuple[int, ...], faults: dict[str, list[str]]) -> None:
        if name in self._headers and self._is_fp8(name):
            faults["of an unsupported type"].append(f"{name} ({_FP8})")
        else:
            self._compare(name, shape, faults)

    def _is_fp8(self, name: str) -> bool:
        return name in self._headers and self._headers[name].dtype == _FP8

    def _tensor(self, name: str) -> torch.Tensor:
        """Read, not mapped: pages that are looked at once would count as memory until the end."""
        header = self._headers[name]
        data = torch.empty(header.end - header.start, dtype=torch.uint8)
        with self._files[name].open("rb") as file:
            file.seek(header.start)
            if file.readinto(data.numpy().data) < len(data):
                raise CheckpointError(f"{self._files[name]}: ends within {name}")
        return data.view(torch.float8_e4m3fn if header.dtype == _FP8 else _FLOATS[header.dtype]).view(
            header.shape
        )

    def _add(self, path: Path, headers: dict[str, TensorHeader], file: Any) -> None:
        for tensor, header in headers.items():
            if tensor in self._headers:
                raise CheckpointError(f"{self._path}: {tensor} is in more than one file")
            self._headers[tensor], self._home[tensor], self._files[tensor] = header, file, path

    def _open(self, stack: ExitStack, name: str) -> Any:
        try:
            return stack.enter_context(safe_open(self._path / name, framework="pt", device="cpu"))
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{self._path / name}: not readable as safetensors: {error}") from error
