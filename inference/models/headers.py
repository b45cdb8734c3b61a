"""The header of a safetensors file, read without trusting it.

A file is eight bytes with the header's length (little endian), the header (JSON: tensor name to dtype, shape
and the range of its bytes), and the tensors' bytes. Everything the header claims is checked against the
file's size before anything of that size is allocated: tensors must cover the data without gaps or overlaps.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from inference.models.fields import shown

_LENGTH_BYTES = 8
_HEADER_BYTES_MAX = 100_000_000  # the format's own limit
_METADATA = "__metadata__"
_ENTRY_KEYS = {"dtype", "shape", "data_offsets"}
_ITEM_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "U16": 2, "I16": 2, "F16": 2,
    "BF16": 2, "U32": 4, "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8, "C64": 8,
}  # fmt: skip


class CheckpointError(ValueError):
    """The folder's tensors are not those of the architecture in its `config.json`, or can not be read."""


@dataclass(frozen=True, slots=True)
class TensorHeader:
    """One tensor as its file describes it; its bytes are those from `start` to `end` of the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def read_headers(path: Path) -> dict[str, TensorHeader]:
    """All tensors of the file `path` by name. Raises `CheckpointError` that says what is wrong."""
    try:
        raw, data_bytes = _read_raw(path)
        entries = json.loads(raw, object_pairs_hook=unique_keys)
    except (OSError, ValueError, RecursionError) as error:
        raise _unreadable(path, str(error)) from error
    if not isinstance(entries, dict):
        raise _unreadable(path, "the header is no JSON object")
    entries.pop(_METADATA, None)
    first = _LENGTH_BYTES + len(raw)
    try:
        headers = {name: _tensor_header(name, entry, first) for name, entry in entries.items()}
        _check_coverage(headers, first, first + data_bytes)
    except ValueError as error:
        raise _unreadable(path, str(error)) from error
    return headers


def unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """For `json.loads`: an object whose keys differ. Raises `ValueError` that names a repeated one."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in found if names.count(name) > 1)
        raise ValueError(f"{shown(repeated)} is there twice")
    return found


def _read_raw(path: Path) -> tuple[bytes, int]:
    """The header's bytes, and how many bytes of data follow it."""
    size = path.stat().st_size
    if size < _LENGTH_BYTES:
        raise ValueError(f"{size} bytes are too few for a header")
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(_LENGTH_BYTES))
        if length > min(size - _LENGTH_BYTES, _HEADER_BYTES_MAX):
            raise ValueError(f"a header of {length} bytes does not fit a file of {size}")
        return file.read(length), size - _LENGTH_BYTES - length


def _tensor_header(name: str, entry: object, first: int) -> TensorHeader:
    """The entry of `name`, whose offsets count from byte `first` of the file."""
    if not isinstance(entry, dict) or entry.keys() != _ENTRY_KEYS:
        raise ValueError(f"{shown(name)}: expected dtype, shape and data_offsets, found {shown(entry)}")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _ITEM_BYTES:
        raise ValueError(f"{shown(name)}: unknown dtype {shown(dtype)}")
    if not _are_sizes(shape):
        raise ValueError(f"{shown(name)}: expected a list of sizes as shape, found {shown(shape)}")
    if not _are_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ValueError(f"{shown(name)}: expected [start, end] as data_offsets, found {shown(offsets)}")
    start, end = offsets
    needed = math.prod(shape) * _ITEM_BYTES[dtype]
    if end - start != needed:
        raise ValueError(f"{shown(name)}: {dtype} {shown(shape)} takes {needed} bytes, not {end - start}")
    return TensorHeader(dtype, tuple(shape), first + start, first + end)


def _are_sizes(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(item, int) and not isinstance(item, bool) and 0 <= item < 1 << 63 for item in value
    )


def _check_coverage(headers: Mapping[str, TensorHeader], place: int, end: int) -> None:
    """Tensors lie one after the other, from byte `place` of the file to its `end`."""
    for name, header in sorted(headers.items(), key=lambda item: (item[1].start, item[1].end)):
        if header.start != place:
            kind = "overlaps the tensor before it" if header.start < place else "leaves a gap before it"
            raise ValueError(f"{shown(name)} starts at byte {header.start} instead of {place}: it {kind}")
        place = header.end
    if place != end:
        raise ValueError(f"the last tensor ends at byte {place}, the file at {end}")


def _unreadable(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(f"{path}: not readable as safetensors: {reason}")
