"""Packed weights kept on disk, so that a model is packed once and mapped into memory ever after.

A folder belongs to one checkpoint (its contents), one weight format and one layout. It has a safetensors file
for every piece, written beside its place and moved there when it is whole: a piece that is there is good, and
packing that was cut short goes on where it stopped.
"""

from __future__ import annotations

import ctypes
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import safe_open

from inference.layers.attention import AttentionWeights
from inference.models.headers import CheckpointError, read_headers
from inference.models.streaming import write_streaming
from moe_ops.grouped_mlp import PackedExperts
from moe_ops.latent_attention import LatentHeads
from moe_ops.linear import PackedMatrix

T = TypeVar("T")

_KINDS: Mapping[str, type[Any]] = {
    kind.__name__: kind for kind in (AttentionWeights, LatentHeads, PackedExperts, PackedMatrix)
}
_TREE = "tree"


class PackedStore:
    """Pieces of packed weights by name, in `folder`; None keeps nothing."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def piece(self, name: str, kind: type[T], make: Callable[[], T]) -> T:
        """The piece `name`, a `kind`: mapped from its file, which is written from `make()` when missing.

        Raises `CheckpointError` when the file is not what was written.
        """
        if self._folder is None:
            return make()
        file = self._folder / f"{name}.safetensors"
        if not file.exists():
            write_piece(file, make())
            _memory_return()
        piece = read_piece(file)
        if not isinstance(piece, kind):
            raise CheckpointError(f"{file}: holds a {type(piece).__name__}; remove it to pack anew")
        return piece


def _memory_return() -> None:
    """Give back what packing has freed: glibc keeps it otherwise, and a worker serves for long."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def write_piece(file: Path, piece: object) -> None:
    """Write the packed dataclass `piece` to `file`, which appears whole or not at all."""
    tensors: dict[str, torch.Tensor] = {}
    tree = _flatten(piece, "", tensors)
    # Whole cache lines first: then every tensor of them starts at the beginning of one.
    order = sorted(tensors, key=lambda name: (tensors[name].nbytes % 64 != 0, name))
    headers = {name: (tensors[name].dtype, tuple(tensors[name].shape)) for name in order}
    part = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        write_streaming(
            part, headers, ((name, tensors[name]) for name in order), metadata={_TREE: json.dumps(tree)}
        )
        with part.open("rb") as written:
            os.fsync(written.fileno())
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def read_piece(file: Path) -> object:
    """The piece that was written to `file`; its tensors are the file's bytes, mapped and not copied."""
    read_headers(file)  # the size is what the header says
    try:
        with safe_open(file, framework="pt", device="cpu") as opened:
            tree = json.loads(opened.metadata()[_TREE])
            return _unflatten(tree, opened)
    except Exception as error:  # whatever does not fit: the file is a cache and can be made again
        raise CheckpointError(f"{file}: no packed weights ({error}); remove it to pack anew") from error


def _flatten(value: object, path: str, tensors: dict[str, torch.Tensor]) -> object:
    """`value` as JSON, with its tensors put into `tensors` under their paths."""
    if isinstance(value, torch.Tensor):
        tensors[path] = value
        return {"tensor": path}
    if is_dataclass(value):
        parts = {
            field.name: _flatten(getattr(value, field.name), f"{path}.{field.name}".lstrip("."), tensors)
            for field in fields(value)
        }
        return {"kind": type(value).__name__, "fields": parts}
    return {"value": value}


def _unflatten(tree: dict[str, Any], opened: Any) -> Any:
    if "tensor" in tree:
        return opened.get_tensor(tree["tensor"])
    if "kind" in tree:
        parts = {name: _unflatten(part, opened) for name, part in tree["fields"].items()}
        return _KINDS[tree["kind"]](**parts)
    return tree["value"]
