"""Reading the tensors of a Hugging Face checkpoint folder: one or more safetensors files, with or without an
index.

Names and shapes are compared with what the architecture expects before any tensor is read, from the files'
headers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

_INDEX = "model.safetensors.index.json"
_FLOATS = {"F64", "F32", "F16", "BF16"}
_SHOWN = 8  # names listed of each kind of fault


class CheckpointError(ValueError):
    """The folder's tensors are not those of the architecture in its `config.json`, or can not be read."""


class Checkpoint:
    """The open files of one checkpoint. Use as a context manager."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stack = ExitStack()
        self._home: dict[str, Any] = {}  # tensor name -> open file; safetensors ships no types

    def __enter__(self) -> Checkpoint:
        with ExitStack() as stack:
            for name in _file_names(self._path):
                file = self._open(stack, name)
                names = file.keys()
                for tensor in names:
                    if tensor in self._home:
                        raise CheckpointError(f"{self._path}: {tensor} is in more than one file")
                    self._home[tensor] = file
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def check(self, expected: Mapping[str, tuple[int, ...]], ignored: tuple[str, ...]) -> None:
        """Compare with the `expected` shapes; others that start with one of `ignored` are let be.

        Raises one `CheckpointError` that names everything missing, unexpected, misshapen or of a strange
        type.
        """
        present = {name for name in self._home if name in expected or not name.startswith(ignored)}
        faults: dict[str, list[str]] = {
            "missing": sorted(expected.keys() - present),
            "unexpected": sorted(present - expected.keys()),
            "misshapen": [],
            "of an unsupported type": [],
        }
        for name in sorted(present & expected.keys()):
            header = self._home[name].get_slice(name)
            shape, dtype = tuple(header.get_shape()), header.get_dtype()
            if shape != expected[name]:
                faults["misshapen"].append(f"{name} (expected {expected[name]}, found {shape})")
            elif dtype not in _FLOATS:
                faults["of an unsupported type"].append(f"{name} ({dtype})")
        parts = [f"{len(names)} {kind}: {_listed(names)}" for kind, names in faults.items() if names]
        if parts:
            raise CheckpointError(f"{self._path}: tensors do not fit config.json. " + "; ".join(parts))

    def read(self, name: str, dtype: torch.dtype) -> torch.Tensor:
        """One tensor, converted to `dtype`."""
        tensor: torch.Tensor = self._home[name].get_tensor(name)
        return tensor.to(dtype)

    def _open(self, stack: ExitStack, name: str) -> Any:
        try:
            return stack.enter_context(safe_open(self._path / name, framework="pt", device="cpu"))
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{self._path / name}: not readable as safetensors: {error}") from error


def _file_names(path: Path) -> list[str]:
    """The checkpoint's files: those of the index, else all safetensors files of the folder."""
    index = path / _INDEX
    if not index.exists():
        names = sorted(file.name for file in path.glob("*.safetensors"))
        if not names:
            raise CheckpointError(f"{path}: no *.safetensors file")
        return names
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        names = sorted(set(weight_map.values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{index}: expected an object `weight_map` of tensor name to file name"
        ) from error
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:
            raise CheckpointError(f"{index}: {name!r} is not the name of a file in this folder")
        if not (path / name).is_file():
            raise CheckpointError(f"{index}: names {name}, which is not there")
    return names


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
