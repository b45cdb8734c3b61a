"""Writing a safetensors file one tensor at a time: memory for one tensor is enough."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

_NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3", torch.int8: "I8", torch.uint8: "U8",
}  # fmt: skip
_METADATA = {"format": "pt"}
_ALIGNMENT = 64  # of the data in the file, so that mapped tensors can start at whole numbers


def write_streaming(
    path: Path,
    headers: Mapping[str, tuple[torch.dtype, tuple[int, ...]]],
    tensors: Iterable[tuple[str, torch.Tensor]],
    *,
    metadata: Mapping[str, str] = _METADATA,
) -> list[str]:
    """Write `path`: `headers` foretell dtype and shape of the `tensors`, which come in the same order.

    Returns the names. Raises `ValueError` when a tensor is not the one that was foretold.
    """
    entries: dict[str, object] = {"__metadata__": dict(metadata)}
    place = 0
    for name, (dtype, shape) in headers.items():
        end = place + torch.Size(shape).numel() * dtype.itemsize
        entries[name] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [place, end]}
        place = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + 8) % _ALIGNMENT)
    foretold = iter(headers.items())
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, tensor in tensors:
            if (name, (tensor.dtype, tuple(tensor.shape))) != next(foretold, None):
                raise ValueError(f"{name}: not the tensor that was foretold")
            file.write(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    if next(foretold, None) is not None:
        raise ValueError("fewer tensors came than were foretold")
    return list(headers)
