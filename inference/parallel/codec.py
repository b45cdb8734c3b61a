"""Orders to other ranks as bytes: dataclasses, numbers and tensors, nothing that could run.

A message is the length of its description (8 bytes), the description in msgpack, and the tensors' bytes,
each tensor at a multiple of 16. Only the dataclasses that are named to the decoder, and those in their
fields, come out.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any, get_args, get_type_hints

import msgspec
import torch

_ALIGNMENT = 16
_LENGTH = struct.Struct("<Q")
_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64,
        torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64,
    )
}  # fmt: skip
_DTYPE_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


class Codec:
    """Writes and reads instances of `roots` and of the dataclasses that their fields may hold."""

    def __init__(self, roots: Iterable[type]) -> None:
        self._types = {kind.__name__: kind for root in roots for kind in _reachable(root, set())}

    def encode(self, value: object) -> torch.Tensor:
        """The bytes of `value`. Raises `TypeError` for what can not be sent."""
        tensors: list[torch.Tensor] = []
        header = msgspec.msgpack.encode(self._describe(value, tensors, 0)[0])
        parts = [_bytes(_LENGTH.pack(len(header)) + header), *(_raw(tensor) for tensor in tensors)]
        return torch.cat([torch.nn.functional.pad(part, (0, -len(part) % _ALIGNMENT)) for part in parts])

    def decode(self, message: torch.Tensor) -> Any:
        """The value whose bytes `message` holds; tensors share its memory."""
        data = message.numpy().data
        (length,) = _LENGTH.unpack_from(data)
        start = _LENGTH.size + length
        tree = msgspec.msgpack.decode(data[_LENGTH.size : start])
        return self._rebuild(tree, message[start + -start % _ALIGNMENT :])

    def _describe(self, value: object, tensors: list[torch.Tensor], place: int) -> tuple[object, int]:
        """A tree of lists that begin with their kind; `place` is where the next tensor will lie."""
        if value is None or isinstance(value, bool | int | float | str):
            return value, place
        if isinstance(value, torch.Tensor):
            tensors.append(value)
            size = value.numel() * value.element_size()
            described = ["t", _DTYPE_NAMES[value.dtype], list(value.shape), place]
            return described, place + size + -size % _ALIGNMENT
        if isinstance(value, tuple | list):
            head, items = ["l"], list(value)
        elif type(value).__name__ in self._types and is_dataclass(value):
            head = ["d", type(value).__name__]
            items = [getattr(value, field.name) for field in fields(value)]
        else:
            raise TypeError(f"a {type(value).__name__} can not be sent to other ranks")
        for item in items:
            described_item, place = self._describe(item, tensors, place)
            head.append(described_item)  # type: ignore[arg-type] # the tree is untyped by nature
        return head, place

    def _rebuild(self, tree: Any, data: torch.Tensor) -> Any:
        if not isinstance(tree, list):
            return tree
        kind, *rest = tree
        if kind == "t":
            name, shape, place = rest
            dtype, count = _DTYPES[name], torch.Size(shape).numel()
            part = data[place : place + count * dtype.itemsize]
            return part.view(dtype).view(shape) if count else torch.empty(shape, dtype=dtype)
        if kind == "l":
            return tuple(self._rebuild(item, data) for item in rest)
        name, *items = rest
        return self._types[name](*(self._rebuild(item, data) for item in items))


def _reachable(kind: type, known: set[type]) -> set[type]:
    """`kind` and all dataclasses in the types of its fields."""
    if kind not in known and is_dataclass(kind):
        known.add(kind)
        for hint in get_type_hints(kind).values():
            for part in _parts(hint):
                _reachable(part, known)
    return known


def _parts(hint: Any) -> Iterator[type]:
    if isinstance(hint, type) and not get_args(hint):
        yield hint
    for part in get_args(hint):
        yield from _parts(part)


def _bytes(data: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def _raw(tensor: torch.Tensor) -> torch.Tensor:
    whole = tensor.detach().contiguous().flatten()
    if whole.is_complex():
        whole = torch.view_as_real(whole).flatten()
    return whole.view(torch.uint8)
