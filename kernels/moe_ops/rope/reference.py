"""The definition: one complex product a pair."""

from __future__ import annotations

import torch


def rotate_pairs(x: torch.Tensor, turn: torch.Tensor) -> torch.Tensor:
    """Turn the pairs (0, 1), (2, 3), … of the last dimension by the complex numbers `turn`, broadcast."""
    if x.dtype != torch.float32 or any(step % 2 for step in (x.storage_offset(), *x.stride()[:-1])):
        x32 = x.float().contiguous().clone()  # complex numbers start at even places
    else:
        x32 = x
    pairs = torch.view_as_complex(x32.view(*x32.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * turn).flatten(-2).to(x.dtype)
