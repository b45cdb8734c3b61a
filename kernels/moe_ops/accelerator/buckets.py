"""Sizes for which decode steps are captured: few, and none much larger than what it is used for."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import torch

_STEP_MAX = 16  # between two sizes; a decode step's time hardly grows over so few rows


def bucket_sizes(largest: int) -> tuple[int, ...]:
    """1, 2, 4, 8, 16, then every 16th up to `largest`, which is the last one.

    Raises `ValueError` unless `largest` is at least 1.
    """
    if largest < 1:
        raise ValueError(f"largest bucket: expected at least 1, found {largest}")
    small = [size for size in (1, 2, 4, 8) if size < largest]
    return (*small, *range(_STEP_MAX, largest, _STEP_MAX), largest)


def bucket_for(count: int, sizes: Sequence[int]) -> int | None:
    """The smallest of the ascending `sizes` that holds `count` rows; None: no bucket does, run without."""
    place = bisect_left(sizes, count)
    return sizes[place] if count > 0 and place < len(sizes) else None


def fill_(target: torch.Tensor, source: torch.Tensor, *, padding: int, repeat: bool = False) -> None:
    """Copy the rows of `source` to the first of `target` and `padding`, or the first row again (`repeat`), to
    the others.

    Other dimensions of `source` may be shorter: what is missing there becomes `padding` too. Raises
    `ValueError` when they are longer.
    """
    fits = all(part <= room for part, room in zip(source.shape, target.shape, strict=True))
    if not fits:
        raise ValueError(f"{tuple(source.shape)} does not fit the captured {tuple(target.shape)}")
    target.fill_(padding)
    target[tuple(slice(0, part) for part in source.shape)].copy_(source)
    if repeat:
        target[len(source) :] = target[:1]
